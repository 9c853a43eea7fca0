"""The card beside an exported file: what goes in and out of it, and its checksum. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aaren_rl.errors import UserError

CARD_FORMAT = 1
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
        """The shape for so many environments."""
        return tuple(batch if size == "batch" else int(size) for size in self.shape)


@dataclass(frozen=True)
class Card:
    """Everything that a program needs to act with an exported file.

    Attributes:
        kind: `onnx` or `torch-export`.
        file: name of the exported file, in the card's folder.
        bytes: its size.
        sha256: its checksum.
        precision: `float32`, or `dynamic-int8`.
        agent: name of the agent.
        inputs: of the step, in order.
        outputs: of the step, in order.
        state: which output becomes which input of the next step, input -> output.
        reset_state: with what each of those inputs is to be filled at an episode's first step (a
            number, or the word `target_return`); `reward` is 0 there.
        observation_shape: of one observation, as the environment gives it, or of its columns.
        action_shape: of one action, as the environment takes it, or of its columns.
        action_dtype: numpy's name of the environment's dtype for actions, or of the columns.
        target_returns: returns to ask for, the agent's own; none where it cannot be asked.
        choices: for discrete actions the first one and how many there are; `None` for vectors (and
            in older cards).
        max_episode_length: steps after which the timestep table ends; `None` for no end.
        provenance: run, checkpoint, dataset, updates, configuration, versions.
        observation_parts: what the columns of an observation are, as `aaren_rl.layout.Layout` in
            JSON says it; `None` for a Box, which is flattened.
        action_parts: likewise of an action; `None` for a Box or a Discrete one.
        checks: what the export measured: agreement with PyTorch, score of the quantised weights.
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
        """The inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
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
            content["choices"] = tuple(content["choices"])
        card = Card(**content)
        inputs, outputs = {each.name for each in card.inputs}, {each.name for each in card.outputs}
        state = set(card.state.values())
        if not (state <= inputs and set(card.state) <= outputs and state == set(card.reset_state)):
            raise ValueError("state, inputs, outputs and reset_state do not fit together")
        if "observation" not in inputs or "action" not in outputs:
            raise ValueError("an input `observation` and an output `action` expected")
        return card


def card_path(file: Path | str) -> Path:
    """Where the card of an exported file is: beside it, `.json` after its name."""
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
        return Card.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; an exported agent has its card beside it") from None
    except OSError as error:
        raise UserError(f"{path}: not readable ({error})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: not the card of an exported agent ({error!r})") from None


def read_checked(file: Path | str, card: Card) -> bytes:
    """The exported file's bytes, if they are those that the card speaks of.

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
