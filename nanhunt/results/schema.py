"""The JSON Schema of a saved report, made from the dataclasses that are saved: the two cannot disagree.

Draft 2020-12, https://json-schema.org/draft/2020-12; what the fields mean is taken from their own docstrings.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import itertools
import textwrap
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from nanhunt.results.report import FORMAT_VERSION, Report
from nanhunt.results.series import Beginning


def schema() -> dict[str, Any]:
    """Of what ``Report.to_json`` writes."""
    definitions: dict[str, Any] = {}
    _define(Report, definitions)
    report = definitions.pop("Report")
    version = {"const": FORMAT_VERSION, "description": "Changes when the meaning of a field does."}
    began = _array((Beginning, ...), definitions) | {
        "description": "One for each run in which something is bad; worked out from the rest when it is read."
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nanhunt report",
        **report,
        "properties": {"format_version": version, "where_it_began": began, **report["properties"]},
        "required": ["format_version", "where_it_began", *report["required"]],
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
