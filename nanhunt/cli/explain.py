"""``nanhunt rule`` and ``nanhunt op``: what is looked for, and in what."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from nanhunt.cli import output as files
from nanhunt.operations import rules
from nanhunt.operations.description import Description
from nanhunt.operations.descriptions import described
from nanhunt.operations.rule import Rule
from nanhunt.options import Option, one_of


def explain_rules(name: str | None, *, every: bool) -> None:
    """rule: one, all, or (with neither) a line each. Raises NanhuntError for a name that is none."""
    known = [rule for operation in described().values() for rule in operation.rules]
    if name is None and not every:
        files.say("".join(f"{rule.code}  {rule.severity:7}  {rule.name}\n" for rule in known))
        return
    chosen = known if every else [_found(name or "", known)]
    files.say("\n".join(f"{rule.code} {rule.name} ({rule.severity})\n\n{_wrapped(rule)}" for rule in chosen))


def _found(name: str, known: Iterable[Rule[Any, Any, Any]]) -> Rule[Any, Any, Any]:
    same = (rule for rule in known if name.strip().lower() in (rule.code.lower(), rule.name))
    return next(same, None) or rules.find(name)


def _wrapped(rule: Rule[Any, Any, Any]) -> str:
    parts = (("What", rule.what), ("Why", rule.why), ("Fix", rule.fix))
    columns = min(files.width(), 100)
    return "".join(
        textwrap.fill(text, columns, initial_indent=f"{title + ':':6}", subsequent_indent=" " * 6) + "\n"
        for title, text in parts
    )


def explain_operations(name: str | None, *, every: bool) -> None:
    """op: one, all, or (with neither) a line each. Raises NanhuntError for a name that is none."""
    known = described()
    if name is None and not every:
        files.say("".join(_lines({each.name: each.what for each in known.values()}, indent="")))
        return
    if name is not None:
        one_of("The operation", name, tuple(known))
    chosen = known.values() if every else [known[name or ""]]
    files.say("\n".join(map(_operation, chosen)))


def _operation(operation: Description) -> str:
    parts = {
        "Tensors": _lines(operation.tensors),
        "Options": _lines({option.flag: _with_default(option) for option in operation.options}),
        "Ways of writing it": _lines(operation.forms),
        "Rules": _lines({rule.code: f"{rule.name} ({rule.severity})" for rule in operation.rules}),
    }
    shown = "".join(f"\n{title}:\n{''.join(lines)}" for title, lines in parts.items() if lines)
    return f"{operation.name}\n\n{_filled(operation.what)}{shown}"


def _with_default(option: Option) -> str:
    silent = option.default is None or option.default is False
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
