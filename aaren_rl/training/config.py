"""The settings of a training run; the command line is made from them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from aaren_rl.agents import AgentConfig, Mode
from aaren_rl.errors import UserError
from aaren_rl.evaluation.seeds import EPISODES_PER_BLOCK
from aaren_rl.records import check_counts, plain, require, typed
from aaren_rl.registry import load_plugins
from aaren_rl.training.loggers import LOGGERS

if TYPE_CHECKING:
    from aaren_rl.agents import Agent


SEVERAL = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="DATASET[:WEIGHT] ...",
    instance_from_str=" + ".join,  # as `aaren_rl.data.mixture.BETWEEN`
    is_instance=lambda value: isinstance(value, str),
    str_from_instance=lambda value: [value],
)
"""One dataset's name, or several with weights, as one text."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings that training runs share when they are compared."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "data": (
            *("data_on", "data_cache", "keep_unfinished_episode", "episode_length"),
            *("top_percent", "held_out"),
            *("normalize_observations", "standardize_returns", "returns_scale"),
        ),
        "training": (
            *("sampling", "windows", "batch_size", "batch_steps", "learning_rate", "weight_decay"),
            *("warmup", "schedule", "gradient_clip", "precision", "devices"),
            *("init_from", "checkpoint_every", "keep_evaluated", "log_every", "loggers", "plugin"),
        ),
        "evaluation": (
            *("evaluate_every", "episodes", "num_envs", "mode", "target_return"),
            "on_evaluation_error",
        ),
    }
    """Boxes of options in the help, below those that are needed most often."""
    dataset: Annotated[str, SEVERAL] = "aaren-rl/hopper-small-v0"
    """Minari id (local, or downloaded), D4RL name such as hopper-medium-v2, or path of a Minari
    or LeRobot folder, of an HDF5 file of D4RL or d3rlpy, or of a .npz or .json file of one's own;
    `mask-velocity:` before it hides the velocities. Several are mixed by weights, 1 if left out:
    `--dataset a:2 b` (docs/tasks.md)."""
    preset: Literal["control", "memory", "chen2021"] | None = None
    """Other defaults, which flags override. `control`: Aaren's heads forget at several rates
    (docs/control.md); `memory`: something must be kept for long (docs/memory.md); `chen2021`: as
    Decision Transformer's own code (docs/learning.md)."""
    data_on: Literal["memory", "disk"] = "memory"
    """Where the steps lie in training; disk is for datasets that memory does not hold: on first use
    they are written to data-cache, and batches are read from there. The batches are the same."""
    data_cache: Path | None = None
    """Folder of the files for `--data-on disk`. By default AAREN_RL_CACHE, else
    ~/.cache/aaren-rl."""
    keep_unfinished_episode: bool = False
    """Train on the last episode of D4RL data too when the recording stopped inside it, though its
    returns-to-go are too low. By default it is left out."""
    episode_length: int | None = None
    """Cut episodes of flat arrays (D4RL, .npz, JSON) after so many steps too, for files that do not
    mark where an episode was cut short."""
    updates: int = 3_000
    """Gradient updates."""
    sampling: Literal["windows", "episodes", "streams"] = "windows"
    """What a batch is: slices of `context-length` steps from anywhere; whole episodes; or segments
    in order, the state carried from one to the next (truncated back-propagation through time)."""
    windows: Literal["anywhere", "inside"] = "anywhere"
    """Where windows lie: with `anywhere` they may reach beyond an episode's start, so that its
    first steps are learned from as often as the others; with `inside` they begin at a step, as
    Decision Transformer's do."""
    batch_size: int = 64
    """Windows, or episodes read side by side as streams, per update, over all processes."""
    batch_steps: int | None = None
    """Steps per update and process with whole episodes, which are packed without padding. By
    default batch-size x context-length."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of AdamW, on the matrices of the blocks and of the head."""
    warmup: float = 0.1
    """Share of the updates over which the learning rate rises linearly."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: a cosine down to a tenth of the peak, or constant."""
    gradient_clip: float = 0.25
    """Largest norm of the gradient."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Arithmetic in training: float32, or bfloat16 autocast (weights, embeddings, scores and states
    stay float32). `auto` is bfloat16 where the hardware multiplies it faster."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU, if any."""
    devices: int = 1
    """Processes that train together (one GPU each, or CPU processes); Lightning Fabric's DDP.
    Under torchrun, which starts them itself and on several hosts, torchrun's number holds."""
    top_percent: float = 100.0
    """Train on the best so many percent of episodes (10 with behavior-cloning is the usual %BC)."""
    held_out: float = 0.05
    """Share of the episodes kept out of training, to measure action errors by position."""
    normalize_observations: bool = True
    """Standardise observations by the data's mean and standard deviation."""
    standardize_returns: bool = True
    """Standardise returns-to-go by the data's mean and standard deviation. Without it, and without
    `returns-scale`, they are divided by 1000 for the known MuJoCo tasks (as Decision Transformer
    does), else by the largest absolute return in the data (docs/learning.md)."""
    returns_scale: float | None = None
    """Divide returns-to-go by this number instead of standardising them."""
    environment: Annotated[str | None, tyro.conf.arg(aliases=("--env",))] = None
    """Gymnasium id to evaluate in, with options as `Id?length=1000&noise=0.5`; by default the
    dataset's own; `none` for no evaluation."""
    evaluate_every: int | None = None
    """Updates between two evaluations; by default a tenth of all."""
    episodes: int = 10
    """Episodes of each evaluation, for each target return."""
    num_envs: int = 16
    """Environments that step together in evaluations; 1 for simulators of which only one can run.
    """
    on_evaluation_error: Literal["continue", "stop"] = "continue"
    """When acting fails in an evaluation: report it, record it in summary.json and train on, or
    stop. The checkpoint is written before in either case."""
    mode: Mode | None = None
    """How to act in evaluations: carry the state, reset it every context length, recompute the
    window or (for the Transformer) slide a cache of the last context. By default carry for Aaren,
    window for the Transformer."""
    target_return: tuple[float, ...] = ()
    """Returns to ask for in evaluations; by default the task's usual one, else the data's best."""
    checkpoint_every: int | None = None
    """Updates between two checkpoints; by default at every evaluation."""
    keep_evaluated: int = 0
    """The agents of the last so many evaluations are kept, in the run's agents/update-N."""
    log_every: int = 50
    """Updates between two log entries."""
    plugin: tuple[str, ...] = ()
    """Module that registers own agents, mixers, encoders, sources or loggers; it is imported first.
    Give the flag again for several."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Where metrics go: `tensorboard`, `csv`, `wandb`, `mlflow`, or registered ones; any number."""
    init_from: Path | None = None
    """Run, checkpoint or saved agent to take the first weights from, with the scales of
    observations and returns that belong to them; its shape too, unless another is given."""
    model: Annotated[AgentConfig, tyro.conf.arg(name="")] = field(default_factory=AgentConfig)

    @property
    def evaluation_interval(self) -> int:
        """Updates between two evaluations."""
        return self.evaluate_every or max(1, self.updates // 10)

    @property
    def kept_updates(self) -> list[int]:
        """The updates at which `keep_evaluated` keeps the agent."""
        evaluated = {*range(0, self.updates, self.evaluation_interval), self.updates} - {0}
        return sorted(evaluated)[len(evaluated) - self.keep_evaluated :]

    @property
    def checkpoint_interval(self) -> int:
        """Updates between two checkpoints."""
        return self.checkpoint_every or self.evaluation_interval

    def check(self) -> None:
        """Load the plug-ins; raise `UserError` for a value that cannot work, naming its flag."""
        load_plugins(self.plugin)
        self.model.check()
        check_counts(self, "updates", "batch_size", "devices", "episodes", "num_envs", "log_every")
        check_counts(self, "evaluate_every", "checkpoint_every", "batch_steps")
        most = EPISODES_PER_BLOCK
        require(self, "episodes", self.episodes <= most, f"must be at most {most}")
        for name in ("learning_rate", "gradient_clip", "returns_scale"):
            value = getattr(self, name)
            fits = value is None or (value > 0 and math.isfinite(value))
            require(self, name, fits, "must be positive and finite")
        most = math.ceil(self.updates / self.evaluation_interval)
        rule = f"must be at least 0 and at most the {most} evaluations"
        require(self, "keep_evaluated", 0 <= self.keep_evaluated <= most, rule)
        require(self, "learning_rate", self.learning_rate <= 1, "must be at most 1")
        require(self, "weight_decay", 0 <= self.weight_decay < 1, "must be in [0, 1)")
        require(self, "warmup", 0 <= self.warmup <= 1, "is a share of the updates in [0, 1]")
        require(self, "held_out", 0 <= self.held_out < 1, "must be in [0, 1)")
        require(self, "top_percent", 0 < self.top_percent <= 100, "must be in (0, 100]")
        require(
            self, "target_return", all(map(math.isfinite, self.target_return)), "must be finite"
        )
        if self.batch_size % self.devices:
            raise UserError(
                f"--devices ({self.devices}) must divide --batch-size ({self.batch_size})"
            )
        for name in self.loggers:
            LOGGERS[name]


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """Train an agent offline on a dataset of trajectories.

    The run's folder then holds config.json, the checkpoints last/ and best/, TensorBoard events and
    summary.json. Example: aaren-rl train --dataset aaren-rl/hopper-small-v0 --updates 1500
    --learning-rate 1e-3 --precision bf16 --out runs/first
    """

    agent: str = "decision-aaren"
    """Which agent to train: decision-aaren, decision-transformer, decision-lstm, decision-min-gru,
    behavior-cloning, `decision-MIXER` for any registered mixer, or a registered agent."""
    seed: int = 0
    """Seed of everything random: weights, batches, dropout, evaluation episodes."""
    out: Path | None = None
    """Folder of the run. By default runs/DATASET/AGENT/seed-SEED."""
    resume: bool = False
    """Go on from the last checkpoint in the run's folder; flags not given are taken from there.
    With more `--updates` a finished run is trained further (docs/reliability.md)."""

    @property
    def run_folder(self) -> Path:
        """The folder of the run."""
        if self.out is not None:
            return self.out
        name = Path(self.dataset).stem if Path(self.dataset).exists() else self.dataset
        if " + " in name:  # several
            name = re.sub(r"[^\w.-]+", "-", name)
        return Path("runs") / name / self.agent / f"seed-{self.seed}"

    def check(self, agent: type[Agent] | None = None) -> None:
        """Raise `UserError` for a value that cannot work, naming its flag.

        Args:
            agent: the agent's class; that of the registered name when `None`.
        """
        super().check()
        require(self, "seed", 0 <= self.seed < 2**32, "must be in [0, 2^32)")
        agent = agent or agent_class(self.agent)
        if agent.has_memory and self.mode is not None and self.mode not in agent.modes:
            raise UserError(f"--mode {self.mode}: {self.agent} knows {', '.join(agent.modes)}")
        agent.check_request(self.mode, self.target_return, self.model.condition)

    def to_json(self) -> dict[str, Any]:
        """All settings but `out` and `resume`, as JSON values."""
        content: dict[str, Any] = plain(self)
        del content["out"], content["resume"]
        if self.init_from is None:
            del content["init_from"]  # so that results of before this field still compare equal
        plugins = list(dict.fromkeys(self.plugin))
        return {**content, "plugin": plugins, "model": self.model.to_json()}

    @staticmethod
    def from_json(content: dict[str, Any], file: Path) -> TrainConfig:
        """The inverse of `to_json`. Missing fields are as in `BEFORE`, else at their defaults.

        Raises:
            UserError: for an unknown field, or a value of another type; names `file` and the field.
        """
        from aaren_rl.agents import AGENTS

        try:
            fields = {**BEFORE, **content}
            name = fields.get("agent", TrainConfig.agent)
            if name in AGENTS:  # older agents took any of these, and ignored what they could not do
                agent = AGENTS[name].make
                if not agent.has_memory:
                    fields["mode"] = None
                if not agent.asks_return and fields.get("target_return"):
                    fields["target_return"] = []
            model = AgentConfig.from_json(fields.pop("model"))
            return typed(TrainConfig(model=model, **fields), str(file))
        except UserError as error:
            reason = str(error).removeprefix(f"{file}: ")
        except (KeyError, TypeError, ValueError) as error:
            reason = str(error)
        raise UserError(f"{file}: not the config of a training run ({reason})")


BEFORE = {"keep_unfinished_episode": True, "standardize_returns": False, "windows": "inside"}
"""What runs of before these fields did, which are resumed as they began."""


def agent_class(name: str, where: str = "--agent") -> type[Agent]:
    """The class of a registered agent."""
    from aaren_rl.agents import AGENTS  # late: it needs PyTorch, the command line's help does not

    if name not in AGENTS:
        raise UserError(f"{where} {name}: {AGENTS.unknown(name)}")
    kind: type[Agent] = AGENTS[name].make
    return kind
