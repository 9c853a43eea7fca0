"""Convolutional encoders of uint8 images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from aaren_rl.errors import UserError
from aaren_rl.layers.encoders.base import register_encoder

SMALLEST_NATURE = 36
"""Pixels a side that the Nature network's three convolutions need."""
FRAMES = 128
"""Frames that are encoded together where no gradients are taken."""


@dataclass(frozen=True)
class ImageOptions:
    """Options of the image encoders."""

    shift: int = 0
    """In training, move each sequence's images by up to this many pixels, the edge repeated (Yarats
    et al. 2021, arXiv 2004.13649, use 4 for 84 x 84). 0 for none."""


class ImageEncoder(nn.Module, ABC):
    """Images to tokens: standardised pixels, convolutions, and one linear layer.

    Each frame is encoded once, on its own. The channels are the shorter one of the first
    and the last axis, so that both `[height, width, channels]` and stacked frames
    `[frames, height, width]` are read; an image of two axes has one channel.

    Args:
        space: the image's Box, `[height, width]` or with channels first or last.
        width: size of a token.
        shift: see `ImageOptions`.

    Raises:
        UserError: for another shape or dtype, or an image that is too small for the network.
    """

    images = True
    middle: Tensor
    reach: Tensor
    begun: Tensor
    smallest = 8
    """Pixels a side that the convolutions need."""

    def __init__(self, space: Any, width: int, shift: int = 0) -> None:
        super().__init__()
        shape = tuple(space.shape)
        if str(space.dtype) != "uint8":
            raise UserError(
                f"images of {space.dtype}: uint8 from 0 to 255 expected by {type(self).__name__}; "
                "`linear` takes other numbers"
            )
        if len(shape) not in (2, 3):
            raise UserError(
                f"images of shape {list(shape)}: height, width and maybe channels expected"
            )
        self.shape = shape
        self.channels_first = len(shape) == 3 and shape[0] < shape[-1]
        if len(shape) == 2:
            channels, *size = 1, *shape
        else:
            channels, *size = shape if self.channels_first else (shape[-1], *shape[:-1])
        if min(size) < self.smallest:
            raise UserError(
                f"images of {size[0]} x {size[1]} pixels: at least {self.smallest} a side expected "
                f"by {type(self).__name__}; `impala` takes images from {ImageEncoder.smallest} on"
            )
        if shift < 0:
            raise UserError(f"shift must be at least 0 pixels, got {shift}")
        self.shift = shift
        self.register_buffer("middle", torch.zeros(channels, *size))
        self.register_buffer("reach", torch.tensor(255.0))
        self.register_buffer("begun", torch.tensor(False))
        self.body = self.convolutions(channels)
        with torch.no_grad():
            features = self.body(torch.zeros(1, channels, *size)).numel()
        self.head = nn.Linear(features, width)

    @abstractmethod
    def convolutions(self, channels: int) -> nn.Module:
        """The network from images `[rows, channels, height, width]` to features."""

    def forward(self, observations: Tensor) -> Tensor:
        """Images `[..., size]`, numbers from 0 to 255 of any dtype, to tokens `[..., width]`."""
        rows = observations.reshape(-1, *self.shape)
        if len(self.shape) == 2:
            rows = rows[:, None]
        elif not self.channels_first:
            rows = rows.movedim(-1, 1)
        if self.training and not self.begun:
            self.standardise(rows)
        if self.training and self.shift:
            sequences = observations.shape[0] if observations.dim() > 2 else len(rows)
            rows = shifted(rows, sequences, self.shift)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            features = self._features(rows)
        else:  # nothing is kept for gradients: a whole episode of frames need not be there at once
            features = torch.cat([self._features(some) for some in rows.split(FRAMES)])
        out: Tensor = self.head(features)
        return out.reshape(*observations.shape[:-1], -1)

    def standardise(self, rows: Tensor) -> None:
        """Take the mean frame, and the deviation of all pixels from it, of the first batch.

        Most of a rendered frame is the same in all frames, and moving parts are small beside it.
        (Data-dependent initialisation, as in Kingma and Dhariwal 2018, arXiv 1807.03039.)

        Args:
            rows: images `[rows, channels, height, width]`; padding (all zero) is ignored.
        """
        shown = rows[(rows != 0).flatten(1).any(1)].float()
        if len(shown):
            # Whole numbers are the same in bfloat16.
            self.middle.copy_(shown.mean(0).round())
            self.reach.copy_((shown - self.middle).square().mean().sqrt().clamp(min=1.0))
        self.begun.fill_(True)

    def _features(self, rows: Tensor) -> Tensor:
        """Images `[rows, channels, height, width]` to features `[rows, size]`."""
        device = rows.device.type
        low = torch.is_autocast_enabled(device)  # 0 to 255 are exact in bfloat16 too
        dtype = torch.get_autocast_dtype(device) if low else torch.float32
        # One copy, and not three: a batch of frames is large.
        pixels = rows.to(dtype, copy=True, memory_format=torch.contiguous_format)
        features: Tensor = self.body(pixels.sub_(self.middle.to(dtype)).div_(self.reach))
        return features.flatten(1)


def shifted(rows: Tensor, sequences: int, most: int) -> Tensor:
    """Images `[sequences * time, channels, height, width]`, shifted by up to `most` pixels.

    All images of a sequence are shifted alike, so that motion between them is the data's.
    """
    height, width = rows.shape[-2:]
    padded = pad(rows.float(), (most,) * 4, mode="replicate")
    across = torch.randint(2 * most + 1, (2, sequences, 1), device=rows.device)
    across = across.expand(-1, -1, len(rows) // sequences).reshape(2, -1, 1)
    down = across[0] + torch.arange(height, device=rows.device)
    right = across[1] + torch.arange(width, device=rows.device)
    index = torch.arange(len(rows), device=rows.device)[:, None, None]
    return padded.movedim(1, -1)[index, down[:, :, None], right[:, None, :]].movedim(-1, 1)


class NatureEncoder(ImageEncoder):
    """Three convolutions, as in Mnih et al. 2015 (Nature 518), for images of 36 pixels and more."""

    smallest = SMALLEST_NATURE

    def convolutions(self, channels: int) -> nn.Module:
        """See `ImageEncoder`."""
        return nn.Sequential(
            *(nn.Conv2d(channels, 32, 8, stride=4), nn.ReLU()),
            *(nn.Conv2d(32, 64, 4, stride=2), nn.ReLU()),
            *(nn.Conv2d(64, 64, 3), nn.ReLU()),
        )


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, channels, height, width]` to the same shape."""
        out: Tensor = x + self.body(x)
        return out


class ImpalaEncoder(ImageEncoder):
    """Three residual stages of 16, 32 and 32 channels (Espeholt et al. 2018, arXiv 1802.01561)."""

    def convolutions(self, channels: int) -> nn.Module:
        """See `ImageEncoder`."""
        stages: list[nn.Module] = []
        for size in (16, 32, 32):
            stages += [
                nn.Conv2d(channels, size, 3, padding=1),
                nn.MaxPool2d(3, stride=2, padding=1),
                Residual(size),
                Residual(size),
            ]
            channels = size
        return nn.Sequential(*stages, nn.ReLU())


def usual_image_encoder(shape: tuple[int, ...]) -> str:
    """The encoder for images of a shape, where none is asked for: the cheaper one that fits."""
    sides = sorted(shape)[-2:]
    return "nature" if min(sides) >= SMALLEST_NATURE else "impala"


register_encoder("nature", NatureEncoder, options=ImageOptions)
register_encoder("impala", ImpalaEncoder, options=ImageOptions)
