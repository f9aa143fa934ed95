"""How an option is declared: once, as a field of a frozen dataclass, in the room that reads it.

To add one, write ``name: type = option(default, help=...)`` in the class of its room (``ReadOptions``,
``JudgeOptions``, an operation's own, ``ReportOptions``, ``WatchOptions``, or ``OutputOptions`` for the command line
alone), and read ``options.name`` there. Its flag with help and completion, its key in pyproject.toml, its keyword of
``nanhunt.check`` or ``nanhunt.watch`` and the refusal of wrong values all come from that line.
"""

from __future__ import annotations

import dataclasses
import numbers
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from nanhunt.errors import NanhuntError

T = TypeVar("T")
_METADATA = "nanhunt"


@dataclass(frozen=True, kw_only=True)
class Option:
    """All that is known of one option; its type is that of its default (None: text, (): several texts).

    A flag whose default is None, which needs ``is_flag``, can be said (--shift), denied (--no-shift) or left open.
    """

    name: str = ""
    """The field, which is the Python keyword; flag and key have dashes for its underscores."""
    default: Any
    help: str
    metavar: str | None = None
    """What --help shows for the value: "[FILE:]NAME"."""
    choices: Collection[str] = ()
    """The only values, in the order in which --help lists them."""
    spellings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What people type for a choice, to ask whether they meant it."""
    suggestions: Callable[[], Iterable[str]] | None = None
    """Values to complete, where there are more than the choices."""
    spelled: str = ""
    """What flag and key are called where Python has no such name: "continue"."""
    short: str = ""
    """A flag of one letter: "-q"."""
    at_least: float | None = None
    at_most: float | None = None
    with_commas: bool = False
    """Several values may also stand in one text, with commas between."""
    is_setting: bool = True
    """Whether a configuration file may hold it."""
    is_flag: bool = False
    """Whether it takes no value though its default is None."""
    is_number: bool = False
    """Whether it takes a number though its default is None."""

    @property
    def flag(self) -> str:
        """As the command line spells it: "--label-smoothing"."""
        return f"--{self.key}"

    @property
    def key(self) -> str:
        """As a configuration file spells it: "label-smoothing"."""
        return self.spelled or self.name.replace("_", "-")

    @property
    def full_help(self) -> str:
        """What it means, and which values there are."""
        if not self.choices:
            return f"{self.help} {self.range.capitalize()}." if self.range else self.help
        *most, last = self.choices
        return f"{self.help} {', '.join(most)} or {last}."

    @property
    def range(self) -> str:
        """For numbers: "at least 0 and at most 1"; "" without bounds."""
        low = f"at least {self.at_least:g}" if self.at_least is not None else ""
        high = f"at most {self.at_most:g}" if self.at_most is not None else ""
        return " and ".join(filter(None, (low, high)))

    @property
    def kind(self) -> type:
        """str, int, float, bool or tuple (of str)."""
        missing = bool if self.is_flag else float if self.is_number else str
        return missing if self.default is None else type(self.default)


def option(
    default: T,
    *,
    help: str,
    metavar: str | None = None,
    choices: Collection[str] = (),
    spellings: Mapping[str, str] | None = None,
    suggestions: Callable[[], Iterable[str]] | None = None,
    spelled: str = "",
    short: str = "",
    at_least: float | None = None,
    at_most: float | None = None,
    with_commas: bool = False,
    is_setting: bool = True,
    is_flag: bool = False,
    is_number: bool = False,
) -> T:
    """A dataclass field that is an option; what the arguments mean is told in ``Option``."""
    known = Option(
        default=default, help=help, metavar=metavar, choices=choices, spellings=spellings or {},
        suggestions=suggestions, spelled=spelled, short=short, at_least=at_least, at_most=at_most,
        with_commas=with_commas, is_setting=is_setting, is_flag=is_flag, is_number=is_number,
    )  # fmt: skip
    # To a type checker the field is its default; what dataclasses see is a Field.
    field: T = dataclasses.field(default=default, metadata={_METADATA: known})
    return field


def again(kind: type, name: str, more: str = "") -> Any:
    """The same option in another class; ``more`` says what else it takes there."""
    known = declared(kind)[name]
    known = dataclasses.replace(known, help=f"{known.help} {more}".strip())
    return dataclasses.field(default=known.default, metadata={_METADATA: known})


_declared: dict[Any, Mapping[str, Option]] = {}
"""By class, of which there are few: every report asks for it."""


def declared(kind: Any) -> Mapping[str, Option]:
    """The options of a class and of those it inherits from, by field name."""
    if kind not in _declared:
        found = ((field.name, field.metadata.get(_METADATA)) for field in dataclasses.fields(kind))
        _declared[kind] = {
            name: dataclasses.replace(each, name=name) for name, each in found if each is not None
        }
    return _declared[kind]


def make(kind: type[T], values: Mapping[str, Any], spelled: Callable[[Option], str] | None = None) -> T:
    """The options of that class with those values; defaults elsewhere, and where a value is None.

    ``spelled`` says how the user named an option, for messages; by default as a flag. Raises NanhuntError for a
    name that is no option, and for a value that is not of its kind, not one of its choices or out of its range.
    """
    known = declared(kind)
    for name in values:
        one_of("The option", name, tuple(known))
    given = {name: value for name, value in values.items() if value is not None}
    return kind(**{name: checked(known[name], value, spelled) for name, value in given.items()})


def checked(option: Option, value: object, spelled: Callable[[Option], str] | None = None) -> Any:
    """The value as the option holds it: numbers converted, several values as a tuple. Raises as ``make`` does."""
    name = option.flag if spelled is None else spelled(option)
    found = _converted(option, value, name)
    if option.choices:
        for each in found if isinstance(found, tuple) else (found,):
            one_of(name, each, option.choices, option.spellings)
    _check_range(option, found, name)
    return found


def one_of(
    name: str, value: str, allowed: Collection[str], spellings: Mapping[str, str] | None = None
) -> None:
    """Raises NanhuntError, with the nearest one, unless ``value`` is one of ``allowed``."""
    import difflib

    if value not in allowed:
        meant = (spellings or {}).get(value)
        near = [meant] if meant else difflib.get_close_matches(value, allowed, n=1)
        question = f"Did you mean {near[0]}? " if near else ""
        raise NanhuntError(f"{name} {value} is not known.", f"{question}Choose from {', '.join(allowed)}.")


def as_written(options: object) -> dict[str, object]:
    """Options by name, sorted, as reports hold them: JSON's own types."""
    values = {name: getattr(options, name) for name in sorted(declared(type(options)))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def explained(kind: Any) -> str:
    """The options of a class and what each means, as a docstring lists keywords."""
    indent = " " * 8
    return "\n".join(
        textwrap.fill(
            f"{option.name}: {option.full_help}", 100, initial_indent=indent, subsequent_indent=indent + "  "
        )
        for option in declared(kind).values()
    )


def _converted(option: Option, value: object, name: str) -> Any:
    kind = option.kind
    if kind is tuple:
        return _several(option, value, name)
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)  # NumPy's too
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    wanted = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    raise _wrong_kind(name, value, wanted[kind])


def _several(option: Option, value: object, name: str) -> tuple[str, ...]:
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
        raise _wrong_kind(name, value, "text, or a list of texts")
    if not option.with_commas:
        return tuple(values)
    return tuple(part.strip() for each in values for part in each.split(",") if part.strip())


def _wrong_kind(name: str, value: object, wanted: str) -> NanhuntError:
    shown = repr(value)
    shown = shown if len(shown) <= 40 else f"of type {type(value).__name__}"
    return NanhuntError(f"{name} {shown} is not {wanted}.", "See `nanhunt check --help`.")


def _check_range(option: Option, value: Any, name: str) -> None:
    low, high = option.at_least, option.at_most
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise NanhuntError(f"{name} {value:g} is out of its range.", f"Choose {option.range}.")
