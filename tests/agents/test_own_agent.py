"""Agents from outside the package: their own loss, head, options and registration."""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_cases import CONTINUOUS, OBSERVATIONS, assert_same_actions, make_agent, play
from forked import forked_code
from torch import Tensor, nn

from aaren_rl.agents import (
    AGENTS,
    AgentConfig,
    AgentSpec,
    BehaviorCloning,
    Carry,
    DecisionAaren,
    DecisionAgent,
    load_agent,
    register_agent,
)
from aaren_rl.agents.policy import AarenPolicy, SteppingPolicy
from aaren_rl.data import Batch
from aaren_rl.errors import UserError
from aaren_rl.experiments import CompareConfig
from aaren_rl.layers import (
    AarenAttention,
    CausalSelfAttention,
    ContinuousActions,
    LinearEncoder,
    LSTMMixer,
    SequenceState,
    register_encoder,
    register_head,
    register_mixer,
)

SPEC = AgentSpec(OBSERVATIONS, CONTINUOUS, returns_scale=10.0, target_returns=(40.0,))
SMALL = {"width": 16, "layers": 2, "context_length": 5, "dropout": 0.0}


def a_batch(steps: int = 6, rows: int = 2, seed: int = 0) -> Batch:
    rng = torch.Generator().manual_seed(seed)
    return Batch(
        observations=torch.randn(rows, steps, 4, generator=rng),
        actions=torch.randn(rows, steps, 2, generator=rng),
        returns_to_go=torch.randn(rows, steps, 1, generator=rng),
        timesteps=torch.arange(steps).expand(rows, steps),
        mask=torch.ones(rows, steps, dtype=torch.bool),
        starts=torch.zeros(rows, dtype=torch.bool),
    )


@dataclass(frozen=True)
class GaussianOptions:
    start: float = -1.0
    """Log standard deviation at the start."""


class Gaussian(DecisionAaren):
    """Predicts a mean and a standard deviation, and overrides `loss` alone."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.log_std = nn.Linear(self.config.width, self.spec.action_size)
        nn.init.constant_(self.log_std.bias, self.options.start if self.options else 0.0)

    def loss(self, batch: Batch) -> Tensor:
        features = self.features(batch)
        log_std = self.log_std(features)
        errors = (self.head(features) - self.actions.encode(batch.actions)) / log_std.exp()
        return (errors.square() / 2 + log_std)[batch.mask].mean()


class Stateful(DecisionAaren):
    """The same freedom with the state in hand."""

    def loss_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState | None]:
        predictions, state = self.predict_from(batch, state)
        return (predictions - self.actions.encode(batch.actions)).abs().mean(), state


class AbsoluteCloning(BehaviorCloning):
    def loss(self, batch: Batch) -> Tensor:
        return (self.predict(batch) - self.actions.encode(batch.actions)).abs().mean()


@pytest.mark.parametrize("kind", [Gaussian, Stateful, AbsoluteCloning])
@pytest.mark.parametrize("stream", [False, True])
def test_training_honours_an_own_loss(kind: type[DecisionAaren], stream: bool) -> None:
    torch.manual_seed(0)
    agent = kind(AgentConfig(**SMALL), SPEC)
    batch = a_batch()
    loss = agent(batch, Carry()) if stream else agent(batch)
    torch.testing.assert_close(loss, agent.loss(batch))
    squared = agent.actions.loss(agent.predict(batch), batch.actions, batch.mask)
    assert abs(float(loss.detach() - squared.detach())) > 1e-3
    loss.backward()
    if kind is Gaussian:
        assert agent.log_std.weight.grad.abs().sum() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("kind", [Gaussian, Stateful, DecisionAaren])
def test_an_own_loss_goes_on_from_the_carried_state(kind: type[DecisionAaren]) -> None:
    """The second half of a stream has the loss that it has in one pass over the whole."""
    torch.manual_seed(0)
    agent = kind(AgentConfig(**SMALL), SPEC)
    whole = a_batch(8)

    def cut(start: int, stop: int) -> Batch:
        fields = ("observations", "actions", "returns_to_go", "timesteps", "mask")
        return Batch(
            **{name: getattr(whole, name)[:, start:stop] for name in fields}, starts=whole.starts
        )

    carry = Carry()
    first = agent(cut(0, 4), carry)
    assert carry.state is not None
    state = carry.state
    second = agent(cut(4, 8), carry)
    assert carry.state is not state
    torch.testing.assert_close((first + second) / 2, agent.loss(whole))
    assert not torch.allclose(second, agent.loss(cut(4, 8)))  # it did remember
    assert not any(tensor.requires_grad for tensor in carry.state.tensors().values())


def test_two_reads_in_one_loss_begin_at_the_same_state() -> None:
    class Twice(DecisionAaren):
        def loss(self, batch: Batch) -> Tensor:
            return (self.predict(batch) - self.predict(batch)).square().sum()

    agent, carry = Twice(AgentConfig(**SMALL), SPEC), Carry()
    agent(a_batch(), carry)
    assert float(agent(a_batch(), carry).detach()) == 0


@pytest.fixture
def registered() -> Any:
    before = dict(AGENTS._entries)
    yield
    AGENTS._entries.clear()
    AGENTS._entries.update(before)
    Gaussian.name = DecisionAaren.name


def test_a_registered_agent_is_saved_and_loaded(tmp_path: Path, registered: None) -> None:
    register_agent("gaussian-aaren", Gaussian, options=GaussianOptions)
    config = AgentConfig(**SMALL, agent_options={"start": -2.5})
    agent = AGENTS["gaussian-aaren"].make(config, SPEC)
    assert agent.name == "gaussian-aaren"
    assert (agent.log_std.bias == -2.5).all()  # type: ignore[union-attr]
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert isinstance(loaded, Gaussian)
    assert loaded.options == GaussianOptions(-2.5)
    torch.testing.assert_close(loaded.loss(a_batch()), agent.eval().loss(a_batch()))
    with pytest.raises(UserError, match=r"'gaussian-aaren': unknown option 'begin'. Known: start"):
        Gaussian(AgentConfig(**SMALL, agent_options={"begin": 1.0}), SPEC)
    with pytest.raises(UserError, match="'gaussian-aaren' is registered already"):
        register_agent("gaussian-aaren", Stateful)


def test_an_agent_that_is_not_registered_is_loaded_where_its_module_is(tmp_path: Path) -> None:
    agent = Gaussian(AgentConfig(**SMALL), SPEC)
    agent.save(tmp_path)
    assert type(load_agent(tmp_path)) is Gaussian
    card = tmp_path / "agent.json"
    card.write_text(card.read_text().replace(f"{__name__}:", "elsewhere:"))
    with pytest.raises(UserError, match="give --plugin elsewhere"):
        load_agent(tmp_path)


PLUGIN = """
from dataclasses import dataclass
import torch
from torch import nn
from aaren_rl.agents import DecisionAgent, register_agent
from aaren_rl.layers import HiddenState, RecurrentMixer, register_encoder, register_mixer

@dataclass(frozen=True)
class LeakyOptions:
    keep: float = 0.9
    heads: int = 1

class Leaky(RecurrentMixer):
    def __init__(self, width, keep=0.9, heads=1):
        super().__init__()
        self.keep, self.heads, self.out = keep, heads, nn.Linear(width, width)

    def mix(self, x, state):
        average, outputs = 0.0 if state is None else state.vectors[:, 0], []
        for token in x.unbind(1):
            average = self.keep * average + (1 - self.keep) * token
            outputs.append(average)
        return self.out(torch.stack(outputs, 1)), HiddenState(average[:, None])

class Deep(nn.Module):
    def __init__(self, space, width, hidden=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(space.shape[0], hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self, observations):
        return self.layers(observations)

class Mine(DecisionAgent):
    mixer = "leaky"

register_mixer("leaky", Leaky, options=LeakyOptions)
register_encoder("deep", Deep)
register_agent("mine", Mine)
"""

ACT = """
import sys, importlib, numpy as np, torch
from aaren_rl.agents import load_agent
for module in sys.argv[2:]:
    importlib.import_module(module)
agent = load_agent(sys.argv[1])
mixer = agent.sequence_model.blocks[0].mixer
print(agent.name, mixer.keep, mixer.heads)
"""


def test_plugins_in_one_file(tmp_path: Path) -> None:
    """A mixer, an encoder and an agent from one file: made, saved, missed by name, loaded."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    make = f"""
import numpy as np, torch, gymnasium as gym, my_plugin
from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec, DecisionAaren
box = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
spec = AgentSpec(box, box, target_returns=(1.0,))
options = dict(width=8, layers=1, heads=2, context_length=4)
named = AgentConfig(**options, mixer="leaky", mixer_options={{"keep": 0.5}}, encoder="deep")
named = AgentConfig.from_json(named.to_json())
for kind, config, folder in (
    (DecisionAaren, named, "mixer"),
    (my_plugin.Mine, AgentConfig(**options), "agent"),
):
    agent = kind(config, spec)
    policies = [agent.policy(2, mode=mode) for mode in ("carry", "window")]
    for step in range(4):  # no longer than the window: then both know the same
        seen = np.full((2, 3), step / 4, np.float32)
        rewards, dones = (None, None) if step == 0 else (np.zeros(2), np.array([step == 2, False]))
        one, other = (policy.act(seen, rewards, dones) for policy in policies)
        np.testing.assert_allclose(one, other, atol=1e-6)
    agent.save("{tmp_path}/" + folder)
"""

    run = functools.partial(forked_code, folder=tmp_path, path=[""])
    made = run(make)
    assert made.returncode == 0, made.stderr
    assert run(ACT, "mixer", "my_plugin").stdout == "decision-leaky 0.5 2\n"
    assert run(ACT, "agent", "my_plugin").stdout == "mine 0.9 2\n"
    for folder, what in (("mixer", "encoder 'deep'"), ("agent", "agent 'mine'")):
        missing = run(ACT, folder)
        assert "UserError" in missing.stderr
        assert f"the {what} comes from the plug-in my_plugin" in missing.stderr


def test_a_mixer_on_another_preset_is_called_by_its_mixer() -> None:
    agent = DecisionAaren(AgentConfig(**SMALL, mixer="attention"), SPEC)
    assert agent.name == "decision-attention"
    assert "sliding" in agent.modes
    assert agent.default_mode == "window"
    with pytest.raises(UserError, match="--mixer-options heads: give --heads"):
        DecisionAaren(AgentConfig(**SMALL, mixer_options={"heads": 2}), SPEC)
    with pytest.raises(
        UserError, match=r"'aaren': unknown option 'keep'. Known: dilution, heads, rec"
    ):
        DecisionAaren(AgentConfig(**SMALL, mixer_options={"keep": 0.5}), SPEC)
    with pytest.raises(UserError, match=r"unknown encoder 'cnn'. Known: .*linear"):
        BehaviorCloning(AgentConfig(**SMALL, encoder="cnn"), SPEC)


def test_what_a_subclass_replaces_is_acted_with() -> None:
    """The folded step copies weights: it must not act for an agent that embeds in its own way."""

    class Blind(DecisionAaren):
        def normalise(self, observations: Tensor) -> Tensor:
            return super().normalise(observations) * 0

    class Deep(DecisionAaren):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            width, size = self.config.width, self.spec.action_size
            self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))

    for kind, policy in (
        (DecisionAaren, AarenPolicy),
        (Gaussian, AarenPolicy),
        (Blind, SteppingPolicy),
        (Deep, SteppingPolicy),
    ):
        assert type(kind(AgentConfig(**SMALL), SPEC).policy(1)) is policy


@pytest.mark.parametrize("condition", ["target", "max-return"])
@torch.no_grad()
def test_an_own_embedding_is_acted_with(condition: Any) -> None:
    """One that overrides `embed` alone: `embed_step` takes its tokens."""

    class Waves(DecisionAaren):
        def embed(self, *inputs: Any) -> Tensor:
            return super().embed(*inputs).sin()

    config = AgentConfig(**SMALL, condition=condition, timestep_embedding="sinusoidal")
    agent = Waves(config, dataclasses.replace(SPEC, largest_return=90.0))
    for mode in ("carry", "window"):
        played = play(agent, mode, [[5]])
        batch = played.batch(0, 0, 5)
        assert_same_actions(agent, batch, played.actions[:, 0], slice(None))


class Cautious(ContinuousActions):
    """Acts with half of what is predicted."""

    def decide(self, predictions: Tensor) -> Tensor:
        return super().decide(predictions) / 2


register_head("cautious", Cautious)


@pytest.mark.parametrize("name", ["decision-aaren", "decision-lstm", "behavior-cloning"])
def test_an_own_action_head(name: str) -> None:
    box = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    plain, cautious = make_agent(name, box), make_agent(name, box, head="cautious")
    seen = np.ones((1, 4), np.float32)
    halved = cautious.policy(1).act(seen)
    np.testing.assert_allclose(halved, plain.policy(1).act(seen) / 2, atol=1e-6)
    assert math.isfinite(float(halved.sum()))


def test_any_registered_mixer_is_an_agent_by_name(own_names: None) -> None:
    register_mixer("two-lstms", LSTMMixer)
    register_mixer("two-caches", CausalSelfAttention)
    made = AGENTS["decision-two-lstms"].make(AgentConfig(**SMALL), SPEC)
    assert (made.name, made.parts()["mixer"]) == ("decision-two-lstms", "two-lstms")
    assert isinstance(made, DecisionAgent)
    assert AGENTS["decision-two-lstms"] is AGENTS["decision-two-lstms"]
    assert AGENTS["decision-two-caches"].make.default_mode == "window"
    assert "sliding" in AGENTS["decision-two-caches"].make.modes
    for name in ("decision-three", "two-lstms", None, 3):
        assert name not in AGENTS
    with pytest.raises(UserError, match="unknown agent 'decision-three'"):
        AGENTS["decision-three"]


def test_a_comparison_does_not_put_one_mixer_under_two_names() -> None:
    config = CompareConfig(model=AgentConfig(mixer="lstm"))
    with pytest.raises(UserError, match="--mixer lstm would take the place of decision-aaren's"):
        config.check()
    dataclasses.replace(config, agents=("decision-lstm", "behavior-cloning")).check()


def test_parts_derived_from_the_library_s_are_not_bypassed(own_registries: None) -> None:
    """An encoder, an embedding and a mixer whose `forward` differs: training and acting use it."""

    class Squashed(LinearEncoder):
        def forward(self, observations: Tensor) -> Tensor:
            return super().forward(observations.tanh())

    class Squared(nn.Linear):
        def forward(self, actions: Tensor) -> Tensor:
            return super().forward(actions.square())

    class SquaredActions(ContinuousActions):
        def embedding(self, width: int) -> nn.Module:
            return Squared(self.size, width)

    class Sharp(AarenAttention):
        def scores(self, x: Tensor) -> Tensor:
            return 50 * super().scores(x)

    register_encoder("squashed", Squashed)
    register_head("squared", SquaredActions)
    register_mixer("sharp", Sharp)
    plain = make_agent("decision-aaren", heads=1)
    for settings in ({"encoder": "squashed"}, {"head": "squared"}, {"mixer": "sharp"}):
        agent = make_agent("decision-aaren", heads=1, **settings)
        played = play(agent, "carry", [[6]])
        batch = played.batch(0, 0, 6)
        assert_same_actions(agent, batch, played.actions[:, 0], slice(None))
        assert (agent.predict(batch) - plain.predict(batch)).abs().max() > 1e-3
