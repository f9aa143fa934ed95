"""``nanhunt rule`` and ``nanhunt op``: what is looked for, and in what."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from nanhunt.cli import output as files
from nanhunt.load.options import ReadOptions
from nanhunt.operations import rules
from nanhunt.operations.operation import Described
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.registry import OPERATIONS
from nanhunt.operations.rule import Rule
from nanhunt.options import Option, declared, one_of


def explain_rules(name: str | None, *, every: bool) -> None:
    """rule: one, all, or (with neither) a line each. Raises NanhuntError for a name that is none."""
    if name is None and not every:
        files.say("".join(f"{rule.code}  {rule.severity:7}  {rule.name}\n" for rule in rules.RULES.values()))
        return
    if every:
        files.say("\n".join(map(_wrapped, rules.RULES.values())))
        return
    rule = rules.find(name or "")
    files.say(_wrapped(rule) + _code(rule, OPERATIONS[rule.operation]))


def _wrapped(rule: Rule[Any, Any, Any]) -> str:
    parts = (("What", rule.what), ("Why", rule.why), ("Fix", rule.fix))
    columns = min(files.width(), 100)
    told = "".join(
        textwrap.fill(text, columns, initial_indent=f"{title + ':':6}", subsequent_indent=" " * 6) + "\n"
        for title, text in parts
    )
    return f"{rule.code} {rule.name} ({rule.severity})\n\n{told}"


_EXAMPLE_DTYPES = ("float32", "float16")
"""A fix is shown in the first of them that it is for."""


def _code(rule: Rule[Any, Any, Any], operation: Described) -> str:
    """The rule's fixes as they would be printed for a small problem; "" where there is none."""
    found: dict[str, tuple[str, str]] = {}
    traps: dict[str, None] = {}
    shapes: Mapping[str, tuple[int, ...]] = {}
    for dtype in _EXAMPLE_DTYPES:
        example = operation.example(dtype)
        if example is None:
            return ""
        shapes = example.shapes
        for fix in (fix for fix in rule.fixes if fix.when(example.problem)):
            if fix.tempting:
                traps[fix.title] = None
            elif fix.title not in found:
                found[fix.title] = dtype, fix.render(example.slots)
    told = "".join(f"\n{_shown_fix(title, *each)}" for title, each in found.items())
    if traps:
        told += f"\n{_filled('Looks like a way out, and hides the fault: ' + ', '.join(traps) + '.')}"
    named = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return f"\n{_filled(f'As code, for {named}:')}{told}" if found else told


def _shown_fix(title: str, dtype: str, code: str) -> str:
    where = "" if dtype == _EXAMPLE_DTYPES[0] else f" (judged in {dtype})"
    return f"  {title}{where}\n{textwrap.indent(code.rstrip(), ' ' * 6)}\n"


def explain_operations(name: str | None, *, every: bool) -> None:
    """op: one, all, or (with neither) a line each. Raises NanhuntError for a name that is none."""
    if name is None and not every:
        files.say("".join(_lines({each.name: each.what for each in OPERATIONS.values()}, indent="")))
        return
    if name is not None:
        one_of("The operation", name, tuple(OPERATIONS))
    chosen = OPERATIONS.values() if every else [OPERATIONS[name or ""]]
    files.say("\n".join(map(_operation, chosen)))


def _operation(operation: Described) -> str:
    """All of it is the operation's own: what its roles, options, forms and rules say of themselves."""
    parts = {
        "Tensors": _lines(
            {each.name: each.what if each.required else f"{each.what}, optional" for each in operation.roles}
        ),
        "Options": _lines({option.flag: _with_default(option) for option in _own_options(operation)}),
        "Ways of writing it": _lines(
            {name: (form.__doc__ or "").split("\n")[0] for name, form in operation.forms.items()}
        ),
        "Rules": _lines({rule.code: f"{rule.name} ({rule.severity})" for rule in operation.rules}),
    }
    shown = "".join(f"\n{title}:\n{''.join(lines)}" for title, lines in parts.items() if lines)
    return f"{operation.name}\n\n{_filled(operation.what)}{shown}"


def _own_options(operation: Described) -> list[Option]:
    """Neither where tensors are nor what is looked for: every operation has those."""
    shared = {**declared(ReadOptions), **declared(JudgeOptions)}
    return [each for name, each in declared(operation.options).items() if name not in shared]


def _with_default(option: Option) -> str:
    silent = option.default is None or option.default is False or option.default == ()
    default = "" if silent else f" Default: {option.default}."
    return f"{option.full_help}{default}"


def _lines(texts: Mapping[str, str], indent: str = "  ") -> list[str]:
    """Names in a column, and beside each its text."""
    wide = max(map(len, texts), default=0) + 2
    return [
        _filled(text, initial=f"{indent}{name:{wide}}", subsequent=indent + " " * wide)
        for name, text in texts.items()
    ]


def _filled(text: str, initial: str = "", subsequent: str = "") -> str:
    columns = min(files.width(), 100)
    return textwrap.fill(text, columns, initial_indent=initial, subsequent_indent=subsequent) + "\n"
