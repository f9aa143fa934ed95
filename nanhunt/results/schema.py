"""The JSON Schemas of saved reports and differences, made from the dataclasses that are saved: they cannot disagree.

Draft 2020-12, https://json-schema.org/draft/2020-12; what the fields mean is taken from their own docstrings.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import itertools
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

from nanhunt.results import difference, report
from nanhunt.results.difference import Difference
from nanhunt.results.report import Report
from nanhunt.results.series import Beginning


def schema() -> dict[str, Any]:
    """Of what ``Report.to_json`` writes."""
    return _schema(Report, "report", "format_version", report.FORMAT_VERSION, where_it_began=_began)


def schema_of_differences() -> dict[str, Any]:
    """Of what ``Difference.to_json`` writes."""
    return _schema(Difference, "diff", "diff_format_version", difference.FORMAT_VERSION)


def _began(definitions: dict[str, Any]) -> dict[str, Any]:
    return _array((Beginning, ...), definitions) | {
        "description": "One for each run in which something is bad; worked out from the rest when it is read."
    }


def _schema(
    kind: type,
    title: str,
    version_name: str,
    version: int,
    **derived: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Of a dataclass and what is written beside its fields: the version, and what is ``derived`` from them."""
    definitions: dict[str, Any] = {}
    _define(kind, definitions)
    body = definitions.pop(kind.__name__)
    constant = {"const": version, "description": "Changes when the meaning of a field does."}
    added = {version_name: constant, **{name: make(definitions) for name, make in derived.items()}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"nanhunt {title}",
        **body,
        "properties": {**added, **body["properties"]},
        "required": [*added, *body["required"]],
        "$defs": definitions | {"number": _NUMBER},
    }


_NUMBER = {
    "description": "JSON knows no NaN and no infinity: these are text.",
    "anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}],
}
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: {"$ref": "#/$defs/number"},
    Any: {},
}


def _define(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a dataclass, which is added to ``definitions``."""
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = {}  # one that refers to itself ends here
        hints, told = get_type_hints(kind), _told(kind)
        properties = {
            field.name: _of(hints[field.name], definitions)
            | ({"description": told[field.name]} if field.name in told else {})
            for field in dataclasses.fields(kind)
        }
        definitions[kind.__name__] = {
            "description": inspect.cleandoc(kind.__doc__ or ""),
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _of(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [each.value for each in hint]}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _define(hint, definitions)
    if origin is tuple:
        return _array(args, definitions)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(args[1], definitions)}
    return {"anyOf": [{"type": "null"} if each is type(None) else _of(each, definitions) for each in args]}


def _array(args: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if args[-1] is Ellipsis:
        return {"type": "array", "items": _of(args[0], definitions)}
    items = [_of(each, definitions) for each in args]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}


def _told(kind: type) -> dict[str, str]:
    """The text under each field, which Python itself forgets."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    pairs = itertools.pairwise(body.body)
    return {
        field.target.id: inspect.cleandoc(str(text.value.value))
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
