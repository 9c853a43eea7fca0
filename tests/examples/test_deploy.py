"""The policy of `examples/deploy` acts as the package's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import aaren_rl as arl


def test_numpy_policy_is_onnx_policy(tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    from aaren_rl.export import ExportConfig, export
    from aaren_rl.runtime import OnnxPolicy

    file = Path(__file__).parents[2] / "examples/deploy/numpy_policy.py"
    spec = importlib.util.spec_from_file_location("numpy_policy", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    data = arl.load_dataset("aaren-rl/hopper-small-v0")
    arl.train(data, updates=3, env="none", width=16, layers=1, out=tmp_path / "run")
    step = tmp_path / "step.onnx"
    export(ExportConfig(run=tmp_path / "run", out=step, steps=20))
    own, ours = module.Policy(step, 3600.0), OnnxPolicy(step, 1, 3600.0)
    for t in range(1000):
        reward = data.rewards[t : t + 1] if t else None
        wanted = ours.act(data.observations[t : t + 1], reward)[0]
        got = own.act(data.observations[t], 0.0 if reward is None else float(reward[0]))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)
