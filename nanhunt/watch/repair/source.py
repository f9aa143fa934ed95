"""The user's source files: where a taped call is written, and which expressions it was given."""

from __future__ import annotations

import ast
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import Any

from ..names import operation
from ..site import foreign, installed
from ..step_graph import StepGraph, argument
from ..tape import Entry, Module

Span = tuple[int, int, int, int]
"""First line, last line, first column, last column: lines from 1, columns in bytes of UTF-8, as ``co_positions``."""
_MODULES = {
    "softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid", "cross_entropy": "CrossEntropyLoss",
    "softplus": "Softplus", "layer_norm": "LayerNorm", "mse_loss": "MSELoss", "l1_loss": "L1Loss",
    "nll_loss": "NLLLoss", "binary_cross_entropy": "BCELoss",
}  # fmt: skip
"""Modules of torch.nn that make one call of the function, on their own arguments."""


_MARK = "\ufeff"


class Source:
    """A file of the user's, as it is on the disk."""

    def __init__(self, file: str) -> None:
        """Raises OSError, UnicodeDecodeError or SyntaxError where it cannot be read as Python."""
        self.file = file
        text = Path(file).read_bytes().decode()
        self.mark = text[: text.startswith(_MARK)]
        """The byte-order mark, where the file begins with one: Python counts no column for it."""
        self.text = text.removeprefix(_MARK)
        self.lines = [line.encode() for line in lines_of(self.text)]
        self.tree = ast.parse(self.text)
        self.parents = {
            child: parent for parent in ast.walk(self.tree) for child in ast.iter_child_nodes(parent)
        }
        self.names = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        self.modules = dict(self._imported())
        """Name in the file -> module or function of torch it stands for."""

    def _imported(self) -> Iterator[tuple[str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield (
                        alias.asname or alias.name.split(".")[0],
                        alias.name if alias.asname else (alias.name.split(".")[0]),
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                for target in node.targets:
                    if isinstance(target, ast.Name) and _importing(node.value):
                        yield target.id, _importing(node.value)

    def written_as(self, module: str) -> str | None:
        """How the file spells a module of torch: "F" or "torch.nn.functional"; None where it imports neither."""
        for name, target in self.modules.items():
            if target == module:
                return name
        parent, _, last = module.rpartition(".")
        above = self.written_as(parent) if parent else None
        return f"{above}.{last}" if above else None

    def holds(self, code: CodeType) -> bool:
        """Whether the running code was compiled from the file as it now is."""
        found = _code_objects(compile(self.text, self.file, "exec", dont_inherit=True))
        return any(
            one.co_qualname == code.co_qualname
            and one.co_code == code.co_code
            and list(one.co_positions()) == list(code.co_positions())
            for one in found
        )

    def node(self, span: Span) -> ast.expr | ast.AugAssign | None:
        """The call or operator that ends where ``span`` ends.

        It begins there too, but for a call of a method: that is placed at the method's name if this is on another
        line than the receiver.
        """
        line, end_line, column, end_column = span
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call | ast.BinOp | ast.UnaryOp | ast.AugAssign | ast.Subscript):
                continue
            if (node.end_lineno, node.end_col_offset) != (end_line, end_column):
                continue
            if (node.lineno, node.col_offset) == (line, column) or _name_starts(node, line):
                return node
        return None

    def span(self, node: ast.AST) -> Span:
        """Of a node that has a place."""
        place: Any = node
        return place.lineno, place.end_lineno, place.col_offset, place.end_col_offset

    def segment(self, span: Span) -> str:
        """The text there."""
        line, end_line, column, end_column = span
        lines = self.lines[line - 1 : end_line]
        lines = [*lines[:-1], lines[-1][:end_column]]
        lines[0] = lines[0][column:]
        return b"".join(lines).decode()

    def statement(self, node: ast.AST) -> ast.stmt:
        """The innermost statement around it."""
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def function(self, node: ast.AST) -> ast.AST:
        """The innermost function, lambda, comprehension or module around it: where its names live."""
        scopes = (
            *(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp),
            *(ast.GeneratorExp, ast.Module, ast.ClassDef),
        )
        node = self.parents[node]
        while not isinstance(node, scopes):
            node = self.parents[node]
        return node

    def given_in(self, expression: ast.AST, name: ast.expr) -> ast.expr | None:
        """What a call in ``expression`` passes for a parameter; None where ``name`` is none, or it is not called there.

        None as well where the function assigns to the parameter, or several calls pass different things.
        """
        function = self.function(name)
        if not isinstance(name, ast.Name) or not isinstance(function, ast.FunctionDef | ast.Lambda):
            return None
        stored = (one for one in ast.walk(function) if isinstance(one, ast.Name) and one.id == name.id)
        if any(not isinstance(one.ctx, ast.Load) for one in stored) or lies_within(
            self, expression, function
        ):
            return None
        called = [
            one for one in ast.walk(expression) if isinstance(one, ast.Call) and self._calls(one, function)
        ]
        given = [_passed(one, function, name.id) for one in called]
        return given[0] if len({ast.dump(one) if one is not None else "" for one in given}) == 1 else None

    def _calls(self, call: ast.Call, function: ast.FunctionDef | ast.Lambda) -> bool:
        """Whether a call is one of this function, by its name."""
        named = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if isinstance(function, ast.FunctionDef):
            return function.name == named
        assigned = self.parents[function]
        targets = assigned.targets if isinstance(assigned, ast.Assign) else []
        return any(isinstance(one, ast.Name) and one.id == named for one in targets)


def _importing(call: ast.Call) -> str:
    """The module that ``pytest.importorskip("torch")`` or ``importlib.import_module("torch")`` returns; else ""."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    first = call.args[0] if call.args else None
    if called not in ("importorskip", "import_module") or not isinstance(first, ast.Constant):
        return ""
    return str(first.value)


def lines_of(text: str) -> list[str]:
    """Lines as Python counts them, with their ends: a form feed ends none."""
    return list(io.StringIO(text, newline=""))


def lies_within(source: Source, node: ast.AST, around: ast.AST) -> bool:
    """Whether a node is a part of another."""
    while node is not around and node in source.parents:
        node = source.parents[node]
    return node is around


def _passed(call: ast.Call, function: ast.FunctionDef | ast.Lambda, name: str) -> ast.expr | None:
    """The argument for a parameter."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    if isinstance(call.func, ast.Attribute) and names[:1] == ["self"]:
        names = names[1:]
    named = {one.arg: one.value for one in call.keywords}
    place = names.index(name) if name in names else len(call.args)
    plain = not any(isinstance(one, ast.Starred) for one in call.args)
    return named.get(name) or (call.args[place] if plain and place < len(call.args) else None)


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_objects(constant)


def _name_starts(node: ast.AST, line: int) -> bool:
    """Whether it is a method's call whose name stands on this line."""
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.end_lineno == line
    )


@functools.lru_cache(maxsize=32)
def _read(file: str, changed: int) -> Source | None:
    try:
        return Source(file)
    except (OSError, ValueError, SyntaxError):
        return None


def source_of(code: CodeType) -> Source | None:
    """The file that the code was compiled from, if the user can edit it and it is as it was."""
    file = code.co_filename
    if installed[file] or foreign[file] or not Path(file).is_file():
        return None
    source = _read(file, Path(file).stat().st_mtime_ns)
    return source if source is not None and source.holds(code) else None


def position(code: CodeType, instruction: int) -> Span | None:
    """Where an instruction is written; None where Python was told not to keep columns."""
    found = next(islice(code.co_positions(), max(instruction, 0) // 2, None), None)
    return (found[0], found[1], found[2], found[3]) if found and None not in found else None  # type: ignore[return-value]


@dataclass(frozen=True)
class Operand:
    """One argument of a taped call."""

    value: Any
    """As the tape has it: a Slot, a number, a dim."""
    node: ast.expr
    """As the user wrote it."""


@dataclass(frozen=True)
class Call:
    """A taped call and the expression that made it."""

    entry: Entry
    source: Source
    node: ast.expr | ast.AugAssign

    @property
    def place(self) -> tuple[str, Span]:
        """The same for each run of this expression."""
        return self.source.file, self.source.span(self.node)

    def operand(self, place: int, name: str = "") -> Operand | None:
        """One argument, wherever it was passed; None where it was not, or cannot be told from the source."""
        node = self._named(name) or self._placed(place)
        if node is None or isinstance(node, ast.Starred):
            return None
        return Operand(argument(self.entry, self.taped(place), name), node)

    def taped(self, place: int) -> int:
        """Where the tape has the argument: 1 - x is noted as x.__rsub__(1)."""
        return 1 - place if len(self.entry.args) == 2 and self._turned else place

    @property
    def _turned(self) -> bool:
        if getattr(self.entry.func, "__name__", "").startswith("__r"):
            return True
        left = self.node.left if isinstance(self.node, ast.BinOp) else None
        return isinstance(left, ast.Constant) and self.entry.args[1] == left.value

    def _named(self, name: str) -> ast.expr | None:
        keywords = self.node.keywords if isinstance(self.node, ast.Call) and name else []
        return next((item.value for item in keywords if item.arg == name), None)

    def _placed(self, place: int) -> ast.expr | None:
        node = self.node
        given: list[ast.expr]
        if isinstance(node, ast.Call):
            given = [node.func.value, *node.args] if self.is_method else list(node.args)  # type: ignore[attr-defined]
        elif isinstance(node, ast.BinOp):
            given = [node.left, node.right]
        elif isinstance(node, ast.AugAssign):
            given = [node.target, node.value]
        elif isinstance(node, ast.UnaryOp):
            given = [node.operand]
        else:
            given = [node.value] if isinstance(node, ast.Subscript) else []
        return given[place] if place < len(given) else None

    @property
    def is_method(self) -> bool:
        """Whether it is written x.exp(), rather than torch.exp(x) or self.softmax(x)."""
        node = self.node
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return False
        func = node.func
        if func.attr != operation(self.entry.func):
            return False
        if self.entry.module is not None and _is_module(self.entry.module, func.attr):
            return False
        if len(node.args) + len(node.keywords) == len(self.entry.args) + len(self.entry.kwargs):
            return False  # nothing is left that a receiver could be
        root: ast.expr = func.value
        while isinstance(root, ast.Attribute):
            root = root.value
        return not (isinstance(root, ast.Name) and root.id in self.source.modules)


def call_of(entry: Entry) -> Call | None:
    """Where a taped call is written; None where the user's file does not show it as one expression."""
    source, span = source_of(entry.code), position(entry.code, entry.instruction)
    node = source.node(span) if source is not None and span is not None else None
    if source is None or node is None:
        return None
    called = isinstance(node, ast.Call)
    return Call(entry, source, node) if not called or _is_this(node, entry, source) else None


def result_of(entry: Entry, graph: StepGraph) -> Call | None:
    """The expression whose value is what a taped call made: the call itself, or that of a module which ends with it."""
    call = call_of(entry)
    if call is not None:
        return call
    source, span = source_of(entry.code), position(entry.code, entry.instruction)
    node = source.node(span) if source is not None and span is not None else None
    later = [one for one in graph.entries if one.order > entry.order][:1]
    ends = not any(one.code is entry.code and one.instruction == entry.instruction for one in later)
    if source is None or not isinstance(node, ast.Call) or not ends or not _single(entry.module):
        return None
    return Call(entry, source, node)


def _single(module: Module | None) -> bool:
    """Whether the module that the user's code has called is one of torch's own, and returns one tensor."""
    outermost = None
    while module is not None and type(module[0]).__module__.startswith("torch.nn.modules"):
        outermost, module = module
    name = type(outermost).__name__
    return outermost is not None and not name.startswith(("RNN", "LSTM", "GRU", "Multihead", "AdaptiveLog"))


def _is_this(node: Any, entry: Entry, source: Source) -> bool:
    """Whether the call written there is this operation, not something that has called it."""
    name = operation(entry.func)
    last = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    target = source.modules.get(last, last) if isinstance(node.func, ast.Name) else last
    if target.rpartition(".")[2] in (name, getattr(entry.func, "__name__", "")):
        return True
    return entry.module is not None and _is_module(entry.module, name)


def _is_module(module: Module, name: str) -> bool:
    """Whether the running module is torch's own for this function, called by the user's code itself."""
    running, outer = module
    known = type(running).__name__ == _MODULES.get(name) and type(running).__module__.startswith("torch.nn")
    return known and (outer is None or not type(outer[0]).__module__.startswith("torch.nn"))
