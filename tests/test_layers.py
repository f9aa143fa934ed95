"""Imports go down the layers only, and what is quick to start loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parents[1] / "nanhunt"
LAYERS: tuple[tuple[str, ...], ...] = (
    ("nanhunt", "errors", "dtypes"),
    ("options",),
    ("results",),
    ("load", "parallel"),
    ("operations",),
    ("scan",),
    ("render", "watch"),
    ("api",),
    ("cli",),
    ("__main__",),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
STANDARD_ONLY = ("errors", "results", "options")
NEVER = {
    "render": {"torch", "numpy", "nanhunt.load"},
    "operations": {"typer", "rich", "nanhunt.render"},
    "load": {"typer", "rich", "nanhunt.render"},
    "cli": {"torch"},
}


def room(module: str) -> str:
    """The part of the package that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imports(file: Path) -> Iterator[str]:
    """Every module imported when code of ``file`` runs, at the top or in a function; not those for type checkers."""
    package = ("nanhunt", *file.relative_to(PACKAGE).parts[:-1])
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield from (
                [f"{module}.{alias.name}" for alias in node.names] if module == "nanhunt" else [module]
            )
        waiting += ast.iter_child_nodes(node)


FILES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}


def own_room(name: str) -> str:
    """Of a file."""
    first = name.split("/")[0].removesuffix(".py")
    return "nanhunt" if first == "__init__" else first


def test_every_module_has_a_layer() -> None:
    assert {own_room(name) for name in FILES} == set(RANK)


@pytest.mark.parametrize("name", FILES)
def test_nothing_imports_upward(name: str) -> None:
    here = own_room(name)
    for module in imports(FILES[name]):
        if module.startswith("nanhunt"):
            # `from nanhunt import __version__` names the package itself.
            there = room(module) if room(module) in RANK else "nanhunt"
            assert there == here or RANK[there] < RANK[here], f"{name} imports {module}"


@pytest.mark.parametrize("name", FILES)
def test_some_rooms_never_touch_some_libraries(name: str) -> None:
    for module in imports(FILES[name]):
        top = ".".join(module.split(".")[:2]) if module.startswith("nanhunt") else module.split(".")[0]
        assert top not in NEVER.get(own_room(name), set()), f"{name} imports {module}"
        if own_room(name) in STANDARD_ONLY:
            assert module.startswith("nanhunt") or top in sys.stdlib_module_names, f"{name} imports {module}"


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

for arguments in (["--help"], ["--version"], ["rule"], ["rule", "NH101"], ["check", "--help"]):
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
