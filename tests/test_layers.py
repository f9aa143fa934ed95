"""Imports go down the layers only, and what is quick to start loads nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nanhunt
from nanhunt.operations import registry

PACKAGE = Path(__file__).parents[1] / "nanhunt"
LAYERS: tuple[tuple[str, ...], ...] = (
    ("nanhunt", "errors", "literal", "dtypes"),
    ("options",),  # how one is declared; the options themselves are in the rooms that read them
    ("results",),
    ("load", "parallel"),
    ("operations",),
    ("scan", "difference"),
    ("render",),
    ("api",),
    ("guard",),
    ("watch",),  # it tries its fixes and commands on the public interface, as a user would
    ("cli", "testing", "notebook"),
    ("__main__",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
STANDARD_ONLY = ("errors", "literal", "results", "options")
NEVER = {
    "render": {"torch", "numpy", "nanhunt.load"},
    "operations": {"typer", "rich", "nanhunt.render", "nanhunt.parallel"},
    "load": {"typer", "rich", "nanhunt.render"},
    "cli": {"torch"},
}
PLUGGED_IN = {("operations/registry.py", "nanhunt.difference.operation")}
"""Named below so that --op, rules and options are told in one place; loaded only when it is asked for."""
FACADE = dict(nanhunt._HOME)
"""What the package hands out, and the module that it gets it from."""


def room(module: str) -> str:
    """The part of the package that a module belongs to: the package itself for a name that it defines."""
    parts = FACADE.get(module.removeprefix("nanhunt."), module).split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANK else "nanhunt"


def imports(code: str, package: tuple[str, ...] = ("nanhunt",)) -> set[str]:
    """Every module that running ``code`` can import: at the top, in a function, by name, through the package.

    Not those for type checkers. ``import nanhunt`` counts as what is then asked of it, and every text that names a
    module of ours in a file that calls import_module counts as an import of it.
    """
    nodes = list(_run(ast.parse(code)))
    found = {module for node in nodes for module in _imported(node, package)}
    ours = {alias.asname or alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
            if alias.name == "nanhunt"}  # fmt: skip
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    found |= {f"nanhunt.{node.attr}" for node in attributes if ast.unparse(node.value) in ours}
    if "import_module" in code or "__import__" in code:
        texts = [
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        named = [
            re.fullmatch(r"((?:nanhunt|torch|numpy|typer|rich)(?:\.\w+)*)(:\w+)?", text) for text in texts
        ]
        found |= {name[1] for name in named if name}
    return found


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed: all but what stands under ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _imported(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = ".".join((*base, *([node.module] if node.module else [])))
        yield from [f"{module}.{alias.name}" for alias in node.names] if module == "nanhunt" else [module]


@pytest.mark.parametrize(
    ("code", "package", "found"),
    [
        ("import nanhunt.api", ("nanhunt",), "nanhunt.api"),
        ("def f():\n    from nanhunt.cli.app import app", ("nanhunt",), "nanhunt.cli.app"),
        ("from nanhunt import scan", ("nanhunt",), "nanhunt.scan"),
        ("from nanhunt import check", ("nanhunt",), "nanhunt.check"),
        ("import nanhunt\nnanhunt.check(1)", ("nanhunt",), "nanhunt.check"),
        ("import nanhunt as n\ndef f(): return n.compare", ("nanhunt",), "nanhunt.compare"),
        ("from .. import api", ("nanhunt", "load"), "nanhunt.api"),
        ("from ..scan.inputs import Scan", ("nanhunt", "load"), "nanhunt.scan.inputs"),
        ("from . import x", ("nanhunt", "load", "readers"), "nanhunt.load.readers"),
        ("from importlib import import_module\nimport_module('nanhunt.api')", ("nanhunt",), "nanhunt.api"),
        (
            "import importlib\nHOME = {'x': 'nanhunt.cli'}\nimportlib.import_module(HOME['x'])",
            (),
            "nanhunt.cli",
        ),
        (
            "from importlib import import_module\nHOME = 'nanhunt.cli.app:app'",
            ("nanhunt",),
            "nanhunt.cli.app",
        ),
        ("__import__('torch')", ("nanhunt",), "torch"),
        ("if TYPE_CHECKING:\n    import json\nelse:\n    import nanhunt.cli", (), "nanhunt.cli"),
    ],
)
def test_every_way_of_importing_is_seen(code: str, package: tuple[str, ...], found: str) -> None:
    assert found in imports(code, package)


def test_types_are_not_imports_and_the_packages_names_have_a_room() -> None:
    assert not imports("if TYPE_CHECKING:\n    import nanhunt.cli")
    assert (room("nanhunt.check"), room("nanhunt.NanhuntError"), room("nanhunt.__version__")) == (
        "api", "errors", "nanhunt"
    )  # fmt: skip


FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}


def own_room(name: str) -> str:
    """Of a file."""
    first = name.split("/")[0].removesuffix(".py")
    return "nanhunt" if first == "__init__" else first


def imports_of(name: str) -> set[str]:
    """Of a file."""
    return imports(FILES[name].read_text(encoding="utf-8"), ("nanhunt", *Path(name).parts[:-1]))


def test_every_module_has_a_layer() -> None:
    assert {own_room(name) for name in FILES} == set(RANK)


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"__init__.py"}))  # it hands out what others import
def test_nothing_imports_upward(name: str) -> None:
    here = own_room(name)
    for module in imports_of(name):
        if module.split(".")[0] == "nanhunt":
            there = room(module)
            if (name, module) in PLUGGED_IN:
                continue
            assert there == here or RANK[there] < RANK[here], f"{name} imports {module}"


@pytest.mark.parametrize("name", FILES)
def test_some_rooms_never_touch_some_libraries(name: str) -> None:
    for module in imports_of(name):
        top = f"nanhunt.{room(module)}" if module.startswith("nanhunt") else module.split(".")[0]
        assert top not in NEVER.get(own_room(name), set()), f"{name} imports {module}"
        if own_room(name) in STANDARD_ONLY:
            assert module.startswith("nanhunt") or top in sys.stdlib_module_names, f"{name} imports {module}"


HOMES = [home.split(":")[0].split(".") for home in registry._HOMES.values()]
OPERATIONS = {home[2] for home in HOMES if home[1] == "operations"}
"""Their files and folders in nanhunt/operations."""


@pytest.mark.parametrize("name", [name for name in FILES if own_room(name) not in ("operations", "watch")])
def test_nothing_outside_an_operations_room_knows_the_operation(name: str) -> None:
    for module in imports_of(name):
        assert not (module.startswith("nanhunt.operations.") and module.split(".")[2] in OPERATIONS), module
    nodes = list(_run(ast.parse(FILES[name].read_text(encoding="utf-8"))))
    prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in prose]
    named = [text for text in texts if isinstance(text, str) and re.search(r"\bNH\d|^fused$|^naive$", text)]
    assert not named, named


STARTS = """
import sys
from nanhunt.__main__ import main

def run(*arguments):
    sys.argv = ["nanhunt", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code

def loaded(*names):
    return [name for name in names if name in sys.modules]

for arguments in (["--help"], ["--version"], ["rule"], ["rule", "NH101"], ["op", "--all"], ["check", "--help"]):
    run(*arguments)
    assert not loaded("torch", "numpy", "safetensors", "jinja2"), (arguments, loaded("torch", "numpy"))
for path in PATHS:
    run("check", *path)
    assert not loaded("torch"), path
"""


def test_starting_loads_nothing_heavy_and_healthy_files_need_no_torch(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    logits = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    masked = logits.copy()
    masked[:, 0] = -np.inf
    labels = np.array([1, 2, 1, 2])
    np.save(tmp_path / "x.npy", logits)
    np.save(tmp_path / "masked.npy", masked)
    np.save(tmp_path / "half.npy", logits.astype(np.float16))
    np.savez(tmp_path / "x.npz", logits=logits, labels=labels)
    np.save(tmp_path / "labels.npy", labels)
    save_file({"logits": logits}, tmp_path / "x.safetensors")
    paths = [
        ["x.npy"], ["x.npz"], ["x.safetensors"], ["half.npy"], ["x.npy", "--format", "json"],
        ["x.npy", "--targets", "labels.npy"], ["masked.npy", "--targets", "labels.npy"],
    ]  # fmt: skip
    script = f"PATHS = {paths!r}\n{STARTS}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_loads_nothing() -> None:
    script = "import sys, nanhunt; assert not {'torch', 'numpy', 'typer', 'rich'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
