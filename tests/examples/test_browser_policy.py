"""The page of `examples/deploy/browser` in headless Chromium, where that and npm are there."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest

from aaren_rl.export.command import write_step

EXAMPLE = Path(__file__).parents[2] / "examples/deploy/browser"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
]
START = """<!doctype html><script type="module">
const send = (value) => fetch("/answer", { method: "POST", body: JSON.stringify(value) });
try {
  const ort = await import("./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  const { Policy } = await import("./policy.js");
  const { CartPole } = await import("./cartpole.js");
  const asked = await (await fetch("asked.json")).json();
"""
SAME = """
  const policy = await Policy.load(ort, "step.onnx", asked.target);
  const actions = [];
  for (const { observation, reward, first } of asked.steps) {
    if (first) policy.reset();
    actions.push(await policy.act(observation, reward));
  }
  send(actions);
"""
PHYSICS = """
  const world = new CartPole(), states = [];
  world.state = asked.start;
  for (const action of asked.actions) {
    const { observation, done } = world.step(action);
    states.push([...observation, Number(done)]);
  }
  send(states);
"""
BALANCE = """
  const policy = await Policy.load(ort, "policy.onnx");
  const world = new CartPole();
  let reward = 0, done = false;
  while (!done) {
    const [action] = await policy.act(world.state, reward);
    ({ reward, done } = world.step(action));
  }
  const frame = document.createElement("iframe");
  frame.src = "index.html";
  document.body.append(frame);
  const shown = (name) => frame.contentDocument?.getElementById(name)?.textContent;
  while (!(Number(shown("best")) > 3)) await new Promise((next) => setTimeout(next, 50));
  const canvas = frame.contentDocument.getElementById("world");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Set(new Uint32Array(data.buffer));
  send({ steps: world.steps, message: shown("message"), colours: colours.size });
"""
END = """
} catch (error) { send(`error: ${error}`); }
</script>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; what a page posts goes into the queue."""

    answers: Queue[Any]

    def __init__(self, *arguments: Any, answers: Queue[Any], **named: Any) -> None:
        self.answers = answers
        super().__init__(*arguments, **named)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.answers.put(json.loads(content))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, with npm's package, which is installed once and kept."""
    if not (EXAMPLE / "node_modules/onnxruntime-web").is_dir():
        if shutil.which("npm") is None:
            pytest.skip("no npm, to install onnxruntime-web")
        command = ["npm", "install", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, timeout=200, check=False)
        if done.returncode:
            pytest.skip("npm cannot install onnxruntime-web here")
    folder = tmp_path_factory.mktemp("page")
    for name in ("index.html", "policy.js", "cartpole.js"):
        shutil.copy(EXAMPLE / name, folder)
    (folder / "node_modules").symlink_to(EXAMPLE / "node_modules")
    return folder


@pytest.fixture
def ask(page: Path, tmp_path: Path) -> Iterator[Any]:
    """A function from a script and what it asks for to what it sends back."""
    answers: Queue[Any] = Queue()
    handler = partial(Handler, directory=str(page), answers=answers)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browsers = []

    def answer(script: str, asked: dict[str, Any]) -> Any:
        (page / "asked.json").write_text(json.dumps(asked))
        (page / "test.html").write_text(START + script + END)
        assert BROWSER is not None
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0"]
        address = f"http://127.0.0.1:{server.server_address[1]}/test.html"
        with (tmp_path / "browser.log").open("w") as log:
            browsers.append(subprocess.Popen([BROWSER, *flags, address], stdout=log, stderr=log))
        return answers.get(timeout=180)

    yield answer
    for browser in browsers:
        browser.terminate()
        browser.wait()
    server.shutdown()
    server.server_close()


def test_a_thousand_steps_are_pytorchs(page: Path, ask: Any) -> None:
    from exported_agents import make_agent

    agent, rng = make_agent(width=16, heads=2, recency=(0.0, 0.3)), np.random.default_rng(0)
    write_step(agent, page / "step.onnx")
    policy, steps, wanted = agent.policy(1, 300.0), [], []
    for t in range(1000):
        seen, reward = rng.normal(size=11).astype(np.float32), float(rng.normal())
        first = t % 370 == 0
        steps.append({"observation": seen.tolist(), "reward": 0 if first else reward})
        steps[-1]["first"] = first
        wanted.append(policy.act(seen[None], np.array([reward]), np.array([first]))[0])
    actions = ask(SAME, {"target": 300.0, "steps": steps})
    np.testing.assert_allclose(actions, wanted, rtol=0, atol=1e-5)


def test_the_physics_are_gymnasiums(ask: Any) -> None:
    import gymnasium as gym

    env, rng = gym.make("CartPole-v1").unwrapped, np.random.default_rng(0)
    env.reset(seed=0)
    start, actions, wanted = [0.01, -0.02, 0.03, 0.04], rng.integers(2, size=40).tolist(), []
    env.state = np.array(start)  # type: ignore[attr-defined]
    for action in actions:
        state, _, terminated, _, _ = env.step(action)
        wanted.append([*state, float(terminated)])
        if terminated:
            break
    states = ask(PHYSICS, {"start": start, "actions": actions[: len(wanted)]})
    np.testing.assert_allclose(states, wanted, rtol=0, atol=1e-6)


def test_the_pole_is_balanced_and_drawn(page: Path, ask: Any) -> None:
    """By the policy that the example trains, here with a part of its data."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("train_cartpole", EXAMPLE / "train_cartpole.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(page / "policy.onnx", episodes=10, updates=150, checked=50)
    found = ask(BALANCE, {})
    assert found["steps"] == 500
    assert found["message"] == "decision-aaren, asked for a return of 500."
    assert found["colours"] >= 3  # paper, cart and pole
