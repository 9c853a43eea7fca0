"""The card beside an exported file: its inputs, outputs and checksum. NumPy only."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

CARD_FORMAT = 1
NOT_A_CARD = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""Python's errors when other JSON is read as a card."""
LARGEST_ARRAY = 2**28  # numbers of one environment in an input or output, a gigabyte of float32
Size = int | str


@dataclass(frozen=True)
class Tensor:
    """One input or output of the step.

    Attributes:
        name: in the graph.
        dtype: numpy's name for it.
        shape: `"batch"` stands for the number of environments.
        meaning: what it is, with its unit.
    """

    name: str
    dtype: str
    shape: tuple[Size, ...]
    meaning: str

    def sizes(self, batch: int) -> tuple[int, ...]:
        """The shape for a batch of this size."""
        return tuple(batch if size == "batch" else int(size) for size in self.shape)


@dataclass(frozen=True)
class Card:
    """All that a program needs to know to act with an exported file.

    Attributes:
        kind: `onnx`, `torch-export` or `c`.
        file: name of the exported file, in the card's folder.
        bytes: its size.
        sha256: its checksum.
        precision: `float32`, `dynamic-int8`, or `int8` (weights alone).
        agent: name of the agent.
        inputs: of the step, in order.
        outputs: of the step, in order.
        state: which output becomes which input of the next step, input -> output.
        reset_state: value of each of those inputs at an episode's first step (a number, or the
            word `target_return`); `reward` is 0 there.
        observation_shape: of one observation, as the environment gives it, or of its columns.
        action_shape: of one action, as the environment takes it, or of its columns.
        action_dtype: numpy's name of the environment's dtype for actions, or of the columns.
        target_returns: returns to ask for, the agent's own; none where it cannot be asked.
        choices: for discrete actions the first one and how many there are; `None` for vectors (and
            in older cards).
        max_episode_length: rows of the learned timestep table; `None` without one.
        provenance: run, checkpoint, dataset, updates, configuration, versions.
        observation_parts: the columns of an observation, `aaren_rl.layout.Layout` as JSON; `None`
            for a Box, which is flattened.
        action_parts: likewise of an action; `None` for a Box or a Discrete one.
        checks: measurements of the export: agreement with PyTorch, score of the quantised weights.
    """

    kind: str
    file: str
    bytes: int
    sha256: str
    precision: str
    agent: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: dict[str, str]
    reset_state: dict[str, float | str]
    observation_shape: tuple[int, ...]
    action_shape: tuple[int, ...]
    action_dtype: str
    target_returns: tuple[float, ...]
    max_episode_length: int | None
    provenance: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    choices: tuple[int, int] | None = None
    observation_parts: list[dict[str, Any]] | None = None
    action_parts: list[dict[str, Any]] | None = None

    @property
    def asks_return(self) -> bool:
        """Whether the agent can be asked for a return."""
        return "target_return" in self.reset_state.values()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"format": CARD_FORMAT, **asdict(self)}

    @staticmethod
    def from_json(content: dict[str, Any]) -> Card:
        """The inverse of `to_json`; raises one of `NOT_A_CARD` for anything else."""
        content = dict(content)
        if content.pop("format") != CARD_FORMAT:
            raise ValueError(f"a card of format {CARD_FORMAT} expected")
        for name in ("inputs", "outputs"):
            content[name] = tuple(
                Tensor(each["name"], each["dtype"], tuple(each["shape"]), each["meaning"])
                for each in content[name]
            )
        for name in ("observation_shape", "action_shape", "target_returns"):
            content[name] = tuple(content[name])
        if content.get("choices") is not None:
            first, count = content["choices"]
            content["choices"] = first, count
        card = Card(**content)
        inputs, outputs = {each.name for each in card.inputs}, {each.name for each in card.outputs}
        state = set(card.state.values())
        if not (state <= inputs and set(card.state) <= outputs and state == set(card.reset_state)):
            raise ValueError("state, inputs, outputs and reset_state do not fit together")
        if "observation" not in inputs or "action" not in outputs:
            raise ValueError("an input `observation` and an output `action` expected")
        card._check_values()
        return card

    def _check_values(self) -> None:
        """Raise TypeError or ValueError for texts, dtypes, sizes and numbers that are none."""
        tensors = (*self.inputs, *self.outputs)
        names = (self.kind, self.file, self.sha256, self.precision, self.agent)
        for text in (*names, *(each.name for each in tensors)):
            if not isinstance(text, str):
                raise TypeError(f"{text!r:.80}: a text expected")
        for dtype in (self.action_dtype, *(each.dtype for each in tensors)):
            if not isinstance(dtype, str) or np.dtype(dtype).kind not in "fiub":
                raise ValueError(f"{dtype!r} is not a dtype of numbers")
        for shape in (self.observation_shape, self.action_shape, *(x.shape for x in tensors)):
            if not all(size == "batch" or (type(size) is int and size >= 0) for size in shape):
                raise ValueError(f"{shape} is not a shape")
            if math.prod(size for size in shape if isinstance(size, int)) > LARGEST_ARRAY:
                raise ValueError(f"{shape}: more than {LARGEST_ARRAY} numbers")
        for each in tensors:
            rows, *columns = each.shape or (0,)
            if rows != "batch" or "batch" in columns:
                raise ValueError(f"{each.name}: {each.shape}: a row for each environment expected")
            asked = self.reset_state.get(each.name) == "target_return"
            if asked and (not columns or 0 in columns):
                raise ValueError(
                    f"{each.name}: {each.shape}: a column for the target return expected"
                )
        fills = [value for value in self.reset_state.values() if value != "target_return"]
        limits = [] if self.max_episode_length is None else [self.max_episode_length]
        for number in (*fills, *self.target_returns, *limits, *(self.choices or (0, 1))):
            if not isinstance(number, (int, float)) or not abs(float(number)) < math.inf:
                raise ValueError(f"{number!r} is not a number")


def card_path(file: Path | str) -> Path:
    """The path of an exported file's card: its name with `.json` after it."""
    file = Path(file)
    return file.with_name(file.name + ".json")


def checksum(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_card(file: Path | str) -> Card:
    """Read the card of an exported file.

    Raises:
        UserError: when it is missing or not a card; names it.
    """
    path = card_path(file)
    try:
        card = Card.from_json(json.loads(path.read_text()))
        for parts, shape in (
            (card.observation_parts, card.observation_shape),
            (card.action_parts, card.action_shape),
        ):
            if parts is not None and Layout.from_json(parts).shape != shape:
                raise ValueError(f"parts of other than {shape} columns")
        return card
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; an exported agent has its card beside it") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error.strerror})") from None
    except NOT_A_CARD as error:
        raise UserError(f"{path}: not the card of an exported agent ({error!r})") from None


def read_checked(file: Path | str, card: Card) -> bytes:
    """The exported file's bytes, checked against the card's size and checksum.

    Raises:
        UserError: when the file is missing, truncated or changed.
    """
    file = Path(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: not readable ({error.strerror})") from None
    if len(content) != card.bytes:
        raise UserError(
            f"{file}: has {len(content)} bytes, its card says {card.bytes}: truncated, or the card "
            "of another export"
        )
    found = checksum(content)
    if found != card.sha256:
        raise UserError(
            f"{file}: checksum {found[:12]} is not the card's {card.sha256[:12]}: the file was "
            "changed after its export"
        )
    return content
