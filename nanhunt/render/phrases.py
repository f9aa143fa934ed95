"""Numbers, names and places as every format says them. Plain strings, no markup."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nanhunt.literal import literal
from nanhunt.results.finding import Finding
from nanhunt.results.tensor import TensorReport


def count(number: int) -> str:
    """10,000,000."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """E.g. "1 row", "2,000 rows"."""
    return f"{count(number)} {noun if number == 1 else noun + 's'}"


def number(value: float | None) -> str:
    """Seven digits, which is what float32 holds; "-" for what was not computed."""
    if value is None:
        return "-"
    return str(value) if not math.isfinite(value) else f"{value + 0.0:.7g}"


def error_bound(value: float) -> str:
    """Two digits, rounded up so that "within" stays true: 2.96e-4 gives "3e-4"."""
    if not math.isfinite(value) or value <= 0:
        return number(abs(value))
    exponent = math.floor(math.log10(value))
    tenths = math.ceil(value / 10.0 ** (exponent - 1) * (1 - 1e-12))
    mantissa, exponent = (tenths / 10, exponent) if tenths < 100 else (1.0, exponent + 1)
    return f"{mantissa * 10.0**exponent:g}" if -4 < exponent < 6 else f"{mantissa:g}e{exponent}"


def name(tensor: TensorReport) -> str:
    """E.g. "ckpt.pt:model.head.weight (from job-1.json)", as it is in the file: not to be printed like that."""
    where = f"{tensor.file}:{tensor.tensor}" if tensor.tensor else tensor.file
    return f"{where} (from {tensor.origin})" if tensor.origin else where


def place(tensor: TensorReport) -> str:
    """The tensor's name, untrusted characters spelled out."""
    return literal(name(tensor))


def shape(dimensions: Sequence[int]) -> str:
    """(4096, 32000)."""
    return f"({', '.join(map(str, dimensions))}{',' if len(dimensions) == 1 else ''})"


def operands(tensor: TensorReport) -> str:
    """E.g. "query, key and value (dump.pt:v)": the tensors of an operation, and what else they are called."""
    names = [
        role if label.rpartition(":")[2].rpartition(".")[2] == role else f"{role} ({literal(label)})"
        for role, label in tensor.roles.items()
    ]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def unit(tensor: TensorReport) -> str:
    """What is counted: rows of logits, the units of another operation, the values of any other tensor."""
    return "value" if tensor.role == "values" else tensor.unit


def units(tensor: TensorReport) -> int:
    """How many of them there are."""
    return math.prod(tensor.shape) if tensor.role == "values" else tensor.rows


def out_of(number: int, tensor: TensorReport) -> str:
    """E.g. "3 of 10,000,000 rows", and of a single one "the only row"."""
    if number == units(tensor) == 1:
        return f"the only {unit(tensor)}"
    return f"{count(number)} of {plural(units(tensor), unit(tensor))}"


def row_name(tensor: TensorReport, row: int) -> str:
    """A row as its indices into the dimensions that units are numbered over, plain when there is only one of them."""
    dimensions = list(tensor.shape if tensor.unit_shape is None else tensor.unit_shape)
    if tensor.role == "logits" and dimensions:
        del dimensions[tensor.class_axis]
    if len(dimensions) <= 1:
        return str(row)
    indices: list[int] = []
    for size in reversed(dimensions):
        row, index = divmod(row, max(size, 1))
        indices.append(index)
    return f"({', '.join(map(str, reversed(indices)))})"


def rows_named(finding: Finding, tensor: TensorReport) -> str:
    """E.g. "rows 3, 7 and 461 more"; "" when none is named, or all of many are meant."""
    names = [row_name(tensor, row) for row in finding.rows]
    if not names or finding.count == units(tensor) > len(names):  # all of them, as their count says
        return ""
    more = finding.count - len(names)
    tail = f" and {count(more)} more" if more > 0 else ""
    return f"{unit(tensor)}{'' if finding.count == 1 else 's'} {', '.join(names)}{tail}"


def message(finding: Finding) -> str:
    """The finding's arithmetic, untrusted characters spelled out."""
    return literal(finding.message)


def health(tensor: TensorReport) -> str:
    """E.g. "3 NaN, 1 +inf, 0 -inf, 12 zero, 0 subnormal, finite values from -3.2 to 4.1", as far as counted."""
    found = tensor.health
    parts = (
        (found.nan, "NaN"),
        (found.posinf, "+inf"),
        (found.neginf, "-inf"),
        (found.zero, "zero"),
        (found.subnormal, "subnormal"),
    )
    counted = [f"{count(number)} {name}" for number, name in parts if number is not None]
    if found.min is not None and found.max is not None:
        counted.append(f"finite values from {number(found.min)} to {number(found.max)}")
    return ", ".join(counted)
