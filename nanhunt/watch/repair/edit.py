"""From rewrites to edited files and a unified diff that ``git apply`` takes."""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from .rewrite import HOLE, SPELLED, Rewrite
from .source import Source, Span, lines_of

_ATOMS = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant, ast.List, ast.Tuple, ast.Dict)
_PURE = (
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Slice),
    *(ast.Tuple, ast.operator, ast.unaryop, ast.cmpop, ast.expr_context),
)
"""What may be written twice: it has no effect and costs little."""
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)
_LATER = (
    *(ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.IfExp, ast.BoolOp),
    *(ast.NamedExpr, ast.Await, ast.Yield),
)
"""What is not always evaluated where its statement begins, or not once."""


class CannotEdit(Exception):  # noqa: N818 - a condition to report, not an error of the user's
    """Why the user's file cannot be edited safely; its text completes "no edit is offered: "."""


def diff(rewrites: Sequence[Rewrite]) -> str:
    """A unified diff of every file concerned, with paths below the working directory.

    Raises CannotEdit where an expression cannot be put where it is needed.
    """
    ordered = sorted(rewrites, key=lambda one: one.call.source.file)
    groups = groupby(ordered, key=lambda one: one.call.source)
    return "".join(_diff(source, Edits(source, list(group)).text()) for source, group in groups)


def snippet(rewrite: Rewrite) -> str:
    """The new expression alone, in the words of where its parts are written."""
    texts = {key: ast.unparse(item.node) for key, item in rewrite.holes.items()}
    if rewrite.index is not None:
        texts["x"] = f"{texts['x']}[{rewrite.index}]"
    return HOLE.sub(lambda hole: texts.get(hole[1], hole[1]), rewrite.template)


def _diff(source: Source, new: str) -> str:
    name = _relative(source.file)
    old = [f"{source.mark}{line}" if n == 0 else line for n, line in enumerate(lines_of(source.text))]
    made = [f"{source.mark}{line}" if n == 0 else line for n, line in enumerate(lines_of(new))]
    lines = difflib.unified_diff(old, made, f"a/{name}", f"b/{name}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _relative(file: str) -> str:
    path = Path(file).resolve()
    below = path.is_relative_to(Path.cwd())
    return (path.relative_to(Path.cwd()) if below else path.relative_to(path.anchor)).as_posix()


class Edits:
    """All rewrites of one file."""

    def __init__(self, source: Source, rewrites: Sequence[Rewrite]) -> None:
        self.source = source
        self.rewrites: dict[Span, Rewrite] = {}
        for one in rewrites:
            known = self.rewrites.setdefault(one.where[1], one)
            if known.template != one.template:
                raise CannotEdit("one expression would have to become two")
        self.hoisted: dict[Span, str] = {}
        """Expressions that are given a name of their own in a line before their statement."""
        self.lines: dict[int, list[str]] = {}
        """What is inserted before a line."""
        self.after = {span: one for span, one in self.rewrites.items() if one.index is not None}
        for span, one in self.after.items():
            del self.rewrites[span]
            self._follow(one)
        self.nodes: dict[tuple[Span, str], ast.expr] = {}
        """What the holes of each rewrite are filled with."""
        for span, one in self.rewrites.items():
            for key in dict.fromkeys(one.used()):
                self.nodes[span, key] = node = self._seen(one.holes[key].node, one.target)
                self._place(one, key, node)

    def text(self) -> str:
        """The whole file, edited."""
        last = len(self.source.lines)
        whole = (1, last, 0, len(self.source.lines[-1]))
        edited = self._edited(whole, own=True)
        if self.lines:
            edited = self._inserted()
        return edited

    def _inserted(self) -> str:
        """Edited in pieces, from one inserted line to the next."""
        parts, start, lines = [], 1, self.source.lines
        for line in sorted(self.lines):
            if line > start:
                parts.append(self._edited((start, line - 1, 0, len(lines[line - 2])), own=True))
            parts += self.lines[line]
            start = line
        if start <= len(lines):
            parts.append(self._edited((start, len(lines), 0, len(lines[-1])), own=True))
        return "".join(parts)

    def _seen(self, hole: ast.expr, target: ast.AST) -> ast.expr:
        """The expression as ``target`` has it: a parameter's argument, if the hole is in a function called there."""
        if hole not in self.source.parents:
            raise CannotEdit("what it needs is computed in another file")
        for _ in range(4):
            given = self.source.given_in(target, hole)
            if given is None:
                break
            hole = given
        return hole

    def _place(self, rewrite: Rewrite, key: str, node: ast.expr) -> None:
        """See that the expression of a hole can be written where its rewrite stands."""
        target = rewrite.target
        pure = all(isinstance(one, _PURE) for one in ast.walk(node))
        if lies_in(self.source.span(node), self.source.span(target)):
            if rewrite.used().count(key) > 1 and not pure:
                self._hoist(node, key)
        elif not self._reaches(node, target):
            raise CannotEdit("what it needs is computed in another function or branch")
        elif not pure or self._rebound(node, target):
            self._hoist(node, key)

    def _follow(self, rewrite: Rewrite) -> None:
        """Compute on one of several results: in a line behind the assignment that names it, or where it is returned."""
        statement, index = self.source.statement(rewrite.target), rewrite.index
        value = statement.value if isinstance(statement, ast.Assign | ast.Return) else None
        names = statement.targets[0] if isinstance(statement, ast.Assign) else None
        parts = (
            [one.id for one in names.elts if isinstance(one, ast.Name)]
            if isinstance(names, ast.Tuple)
            else []
        )
        whole = isinstance(names, ast.Tuple) and len(parts) == len(names.elts)
        if index is None or value is not rewrite.target:
            raise CannotEdit("the one of several results is not given a name where they are made")
        if isinstance(statement, ast.Return):
            self._returned(rewrite, statement, index)
        elif whole and index < len(parts):
            self._line_after(statement, f"{parts[index]} = {_applied(rewrite, parts[index])}")
        else:
            raise CannotEdit("the one of several results is not given a name where they are made")

    def _returned(self, rewrite: Rewrite, statement: ast.Return, index: int) -> None:
        line = self.source.lines[statement.lineno - 1]
        indent, end = line[: statement.col_offset], "\r\n" if line.endswith(b"\r\n") else "\n"
        if indent.strip():
            raise CannotEdit("another statement shares its line")
        names = [self._free(f"part_{n}") for n in range(len(rewrite.call.entry.out))]
        span = self.source.span(rewrite.target)
        text = self._edited(span, own=False)
        self.lines.setdefault(statement.lineno, []).append(
            f"{indent.decode()}{', '.join(names)} = {text}{end}"
        )
        names[index] = _applied(rewrite, names[index])
        self.hoisted[span] = ", ".join(names)

    def _free(self, name: str) -> str:
        """The name, with what makes it new in the file."""
        while name in self.source.names:
            name += "_"
        return name

    def _line_after(self, statement: ast.stmt, text: str) -> None:
        lines = self.source.lines
        first, last = lines[statement.lineno - 1], lines[statement.end_lineno - 1]  # type: ignore[operator]
        indent, rest = first[: statement.col_offset], last[statement.end_col_offset :].partition(b"#")[0]
        if indent.strip() or rest.strip():
            raise CannotEdit("another statement shares its line")
        end = "\r\n" if last.endswith(b"\r\n") else "\n"
        before = "" if last.endswith((b"\n", b"\r")) else end
        self.lines.setdefault(statement.end_lineno + 1, []).append(f"{before}{indent.decode()}{text}{end}")  # type: ignore[operator]

    def _reaches(self, node: ast.expr, target: ast.AST) -> bool:
        """Whether ``node`` is evaluated before ``target`` whenever that is: in a statement of a block around it."""
        source, first, last = self.source, self.source.statement(node), self.source.statement(target)
        same = source.function(node) is source.function(target)
        return same and first.lineno <= last.lineno and _leads_to(source, first, target)

    def _rebound(self, node: ast.expr, target: ast.AST) -> bool:
        """Whether a name in it is assigned between there and ``target``."""
        names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        first, last = self.source.statement(node), self.source.statement(target)
        return any(
            isinstance(one, ast.Name) and one.id in names and not isinstance(one.ctx, ast.Load)
            for one in ast.walk(self.source.function(node))
            if isinstance(one, ast.Name) and first.lineno <= one.lineno < last.lineno
        )

    def _hoist(self, node: ast.expr, key: str) -> None:
        span = self.source.span(node)
        if span in self.hoisted:
            return
        statement = self.source.statement(node)
        line = self.source.lines[statement.lineno - 1]
        indent = line[: statement.col_offset]
        around = self.source.parents[node]
        while around is not statement:
            if isinstance(around, _LATER):
                raise CannotEdit("what it needs is not computed in a statement of its own")
            around = self.source.parents[around]
        if not isinstance(statement, _SIMPLE) or indent.strip():
            raise CannotEdit("what it needs is not computed in a statement of its own")
        name = self._free(key)
        text = self._edited(span, own=False)
        end = "\r\n" if line.endswith(b"\r\n") else "\n"
        self.lines.setdefault(statement.lineno, []).append(f"{indent.decode()}{name} = {text}{end}")
        self.hoisted[span] = name

    # text ----------------------------------------------------------------------------------------------------

    def _edited(self, span: Span, *, own: bool) -> str:
        """The text of a span with every rewrite inside it done; ``own``: one of the very span too."""
        inside = [
            one for one in (*self.rewrites, *self.hoisted) if lies_in(one, span) and (own or one != span)
        ]
        inside = [one for one in inside if not any(other != one and lies_in(one, other) for other in inside)]
        parts: list[str] = []
        line, column = span[0], span[2]
        for one in sorted(set(inside), key=lambda item: (item[0], item[2])):
            new, replaced = self._new(one)
            if (replaced[0], replaced[2]) < (line, column):
                replaced = one
            parts += [self._between(line, column, replaced[0], replaced[2]), new]
            line, column = replaced[1], replaced[3]
        parts.append(self._between(line, column, span[1], span[3]))
        return "".join(parts)

    def _between(self, line: int, column: int, end_line: int, end_column: int) -> str:
        return self.source.segment((line, end_line, column, end_column))

    def _new(self, span: Span) -> tuple[str, Span]:
        """What is written there instead, and the span it takes: with the parentheses that it makes superfluous."""
        if span in self.hoisted:
            return self.hoisted[span], span
        rewrite = self.rewrites[span]
        text = self._filled(rewrite)
        node = rewrite.target
        if isinstance(ast.parse(text, mode="eval").body, _ATOMS):
            return text, _grouped(self.source, span)
        parent = self.source.parents[node]
        given = isinstance(parent, ast.Call) and parent.func is not node
        plain = given or isinstance(parent, ast.stmt | ast.keyword)
        return (text if plain or _grouped(self.source, span) != span else f"({text})"), span

    def _filled(self, rewrite: Rewrite) -> str:
        """The template with the user's expressions in its holes."""
        bare = iter(list(_bare(rewrite.template)))

        def fill(hole: object) -> str:
            name, raw = str(hole[1]), next(bare)  # type: ignore[index]
            if name in SPELLED:
                return self._spelled(SPELLED[name])
            node = self.nodes[rewrite.where[1], name]
            known = self.hoisted.get(self.source.span(node))
            text = known or self._edited(self.source.span(node), own=node is not rewrite.target)
            return text if known or raw or isinstance(node, _ATOMS) else f"({text})"

        return HOLE.sub(fill, rewrite.template)

    def _spelled(self, module: str) -> str:
        found = self.source.written_as(module)
        if found is not None:
            return found
        first = next(
            (
                node.lineno
                for node in self.source.tree.body
                if isinstance(node, ast.Import | ast.ImportFrom)
                and getattr(node, "module", "") != "__future__"
            ),
            None,
        )
        if first is None:
            raise CannotEdit(f"the file does not import {module}")
        self.lines.setdefault(first, [])
        if "import torch\n" not in self.lines[first]:
            self.lines[first].append("import torch\n")
        return module


def _applied(rewrite: Rewrite, name: str) -> str:
    """The template of a result, with a name for it."""
    return HOLE.sub(lambda hole: name if hole[1] == "x" else hole[1], rewrite.template)


def _bare(template: str) -> Iterator[bool]:
    """For each hole, in order, whether an expression of any kind may stand there without parentheses."""
    text = HOLE.sub(lambda hole: hole[1], template)
    tree = ast.parse(text, mode="eval")
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    places: dict[int, ast.Name] = {
        node.col_offset: node for node in ast.walk(tree) if isinstance(node, ast.Name)
    }
    shift = 0
    for hole in HOLE.finditer(template):
        node = places[hole.start() - shift]
        shift += 2
        parent = parents[node]
        yield (
            (isinstance(parent, ast.Call) and parent.func is not node)
            or isinstance(parent, ast.keyword | ast.Expression)
            or (isinstance(parent, ast.Subscript) and parent.slice is node)
        )


def lies_in(span: Span, around: Span) -> bool:
    """Whether a span lies in another, or is it."""
    begins = (around[0], around[2]) <= (span[0], span[2])
    return begins and (span[1], span[3]) <= (around[1], around[3])


def _grouped(source: Source, span: Span) -> Span:
    """The span with the parentheses around it that only group: not those of a call."""
    line, end_line, column, end_column = span
    before, after = source.lines[line - 1][:column], source.lines[end_line - 1][end_column:]
    if not before.endswith(b"(") or not after.startswith(b")"):
        return span
    outside = before[:-1].rstrip()[-1:]
    calls = outside.isalnum() or outside in (b"_", b")", b"]", b'"', b"'")
    return span if calls else (line, end_line, column - 1, end_column + 1)


def _leads_to(source: Source, statement: ast.stmt, target: ast.AST) -> bool:
    """Whether the statement stands in one of the blocks around ``target``, not in another branch."""
    node: ast.AST = source.statement(target)
    while not isinstance(node, ast.Module):
        parent = source.parents[node]
        blocks = [value for _, value in ast.iter_fields(parent) if isinstance(value, list) and node in value]
        if any(statement in block for block in blocks):
            return True
        node = parent
    return False


def write(path: str, text: str) -> None:
    """Put the patch where the user wants it. Raises OSError."""
    folder = os.path.dirname(path)  # noqa: PTH120
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text.encode())
