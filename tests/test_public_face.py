"""`import aaren_rl`: light, and every name is there; the operator and the layers stand alone."""

from __future__ import annotations

import ast
import doctest
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch

import aaren_rl

LAZY = [
    "aaren_rl",
    *(f"aaren_rl.{room}" for room in ("agents", "collect", "data", "export", "training")),
]

HEAVY = ("torch", "numpy", "gymnasium", "minari", "tyro", "rich")

ALONE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None: an import fails, as if not installed
import torch
from aaren_rl.layers import AarenAttention
from aaren_rl.ops import prefix_attention

layer = AarenAttention(8, heads=2)
tokens = torch.randn(3, 5, 8)
outputs, state = layer(tokens)
outputs.sum().backward()
stepped = None
for token in tokens.split(1, dim=1):
    output, stepped = layer(token, stepped)
torch.testing.assert_close(output, outputs[:, -1:])
values, _ = prefix_attention(torch.zeros(1, 3, 1), torch.arange(3.0)[None, :, None, None])
torch.testing.assert_close(values.flatten(), torch.tensor([0.0, 0.5, 1.0]))
"""


def python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import aaren_rl, sys; print(*dir(aaren_rl), sep='\\n'); print(*sys.modules)"
    *names, modules = python(program).splitlines()
    assert names == sorted(aaren_rl.__all__)
    assert not set(modules.split()) & set(HEAVY)


@pytest.mark.parametrize("package", LAZY)
def test_every_lazy_name_is_what_type_checkers_see(package: str) -> None:
    module = import_module(package)
    modules = {name.name for name in pkgutil.iter_modules(module.__path__)}
    assert not modules & set(module.__all__), "a name would be hidden by a submodule"
    assert set(module.__all__) == imported(module) - {"TYPE_CHECKING", "lazy_exports"}
    for name in module.__all__:
        value = getattr(module, name)
        assert value is getattr(module, name)
        assert not isinstance(value, ModuleType)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'trian'"):
        module.trian  # noqa: B018


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize("name", aaren_rl.__all__)
def test_every_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = getattr(aaren_rl, name)
    monkeypatch.chdir(tmp_path)
    known = {"arl": aaren_rl, "np": numpy, "torch": torch, name: value}
    text = inspect.getdoc(value) or ""
    example = doctest.DocTestParser().get_doctest(text, known, name, None, None)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def imported(module: ModuleType) -> set[str]:
    tree = ast.parse(inspect.getsource(module))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports for alias in node.names}


def needed_by(*distributions: str) -> set[str]:
    """These distributions and all that they need, in the form of `packages_distributions`."""
    found: set[str] = set()
    todo = list(distributions)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            try:
                needs = requires(name) or []
            except ModuleNotFoundError:  # one for another platform
                continue
            todo += [plain(need) for need in needs if "extra ==" not in need]
    return found


def plain(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_operator_and_layers_need_torch_and_numpy_alone() -> None:
    allowed = {*needed_by("torch", "numpy"), "aaren-rl"}
    others = [
        module
        for module, distributions in packages_distributions().items()
        if not {plain(name) for name in distributions} & allowed and module.isidentifier()
    ]
    assert {"gymnasium", "minari", "safetensors", "tyro"} <= set(others)
    python(ALONE, *others)
