"""From declared options to a command: its flags, its help, and the values that it is given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import typer

from nanhunt.cli.settings import Configuration, read_configuration
from nanhunt.options import Option, declared, make, option
from nanhunt.render import REPORT_FORMATS

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What to write."""

    format: str = option("text", help="How standard output is written.", choices=REPORT_FORMATS)
    output: tuple[str, ...] = option(
        (),
        metavar="FILE",
        help="Also write the report here, format by suffix (.json .xml .sarif .md .html .txt).",
    )
    exit_zero: bool = option(False, help="Exit with 0 even when there are findings.")
    quiet: bool = option(False, short="-q", help="Findings only.")
    verbose: bool = option(False, short="-v", help="Healthy tensors and histograms too.")


@dataclass(frozen=True, kw_only=True)
class OutputOptions(WriteOptions):
    """What to write.

    This is about reports on tensors, which can be saved and counted.
    """

    baseline: str | None = option(
        None, metavar="FILE", help="A saved JSON report: what is in it is known and does not fail."
    )
    statistics: bool = option(False, help="Also a table of rules by count.")


@dataclass(frozen=True, kw_only=True)
class ScanOutputOptions(OutputOptions):
    """What to write.

    This needs the tensors, and not only reports of them.
    """

    save_rows: str | None = option(
        None, metavar="FILE", help="Write one line per row to this .npz or .csv, for filtering."
    )


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What to write.

    This is about commands that answer in a line.
    """

    json: bool = option(False, help="The answer as JSON.")


@dataclass(frozen=True, kw_only=True)
class SettingsOptions:
    """Configuration."""

    config: str | None = option(
        None, metavar="FILE", help="Read settings from this file, not from pyproject.toml.", is_setting=False
    )
    isolated: bool = option(False, help="Read no configuration file.", is_setting=False)


@dataclass(frozen=True)
class Given:
    """What the user asked for: the command line first, then the configuration file."""

    typed: Mapping[str, Any]
    """Values from the command line, by field name."""
    configuration: Configuration = field(default_factory=Configuration)

    def part(self, kind: type[T], path: str | None = None) -> T:
        """The options of that class, for one input where ``path`` is given. Raises NanhuntError for wrong values."""
        special = {} if path is None else self.configuration.for_path(path)
        values = {**self.configuration.values, **special, **self.typed}
        return make(kind, {name: values[name] for name in declared(kind) if name in values})


def command(app: typer.Typer, *parts: type, **settings: Any) -> Callable[[Callable[..., None]], None]:
    """Registers ``function(given, its own arguments)`` as a command that takes those options too.

    Without options it is ``function(its own arguments)``.
    """

    def register(function: Callable[..., None]) -> None:
        if not parts:
            app.command(**settings)(function)
            return
        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        names = [each.name for each in own]

        def run(context: typer.Context, **values: Any) -> None:
            function(_given(context, parts), **{name: values[name] for name in names})

        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        flags = [_parameter(part, each) for part in parts for each in declared(part).values()]
        run.__signature__ = inspect.Signature([context, *own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        app.command(**settings)(run)

    return register


def _parameter(part: type, option: Option) -> inspect.Parameter:
    """The option as a parameter that Typer understands."""
    several = option.kind is tuple
    default = None if several else option.default
    kind: Any = list[str] | None if several else option.kind | None if default is None else option.kind
    flag = f"{option.flag}/--no-{option.key}" if option.is_flag else option.flag
    words = option.suggestions or (lambda: option.choices)
    info = typer.Option(
        *filter(None, (flag, option.short)),
        help=f"{option.full_help} Repeatable." if several else option.full_help,
        metavar=option.metavar,
        autocompletion=starting(words),
        rich_help_panel=_title(part, option.name),
    )
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def _title(part: type, name: str) -> str:
    """Over which options of a kind stand in --help: what the class that declares them says of itself."""
    return (_owners(part)[name].__doc__ or "Options").split(".")[0]


@functools.cache
def _owners(part: type) -> dict[str, type]:
    """The class that declares each option."""
    return {name: each for each in reversed(part.__mro__) for name in inspect.get_annotations(each)}


def starting(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes what is typed to those of the words that begin with it."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words() if word.startswith(incomplete)]

    return complete


def _given(context: typer.Context, parts: tuple[type, ...]) -> Given:
    names = [name for part in parts for name in declared(part)]
    values = {name: context.params[name] for name in names}
    typed = {name: value for name, value in values.items() if _is_typed(context, name)}
    if SettingsOptions not in parts:
        return Given(typed)
    by_path = _keys(part for part in parts if not issubclass(part, WriteOptions))  # one report for all paths
    configuration = read_configuration(
        values["config"],
        _keys(parts),
        by_path,
        command=context.command.name or "",
        isolated=values["isolated"],
    )
    return Given(typed, configuration)


def _keys(parts: Iterable[type]) -> dict[str, Option]:
    """What a configuration file may hold."""
    return {each.key: each for part in parts for each in declared(part).values() if each.is_setting}


def _is_typed(context: typer.Context, name: str) -> bool:
    # Compared by name, since Typer may bring a click of its own along.
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
