"""One command from its parsed options to its exit code: settings, survey, rendering, files."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import typer

from nanhunt.cli import output
from nanhunt.cli.settings import Settings, read_settings
from nanhunt.errors import NanhuntError
from nanhunt.operations import rules
from nanhunt.options import FAIL_ON, Options, one_of, validate
from nanhunt.render import FORMATS, format_for, render, statistics
from nanhunt.results import baseline
from nanhunt.results.report import ExitCode, ReadError, Report, exit_code, merge

if TYPE_CHECKING:
    from nanhunt.operations.cross_entropy.sweep import RowTable
    from nanhunt.operations.rule import Rule

INTERRUPTED = 130
_NOT_SETTINGS = {"paths", "path", "reports", "config", "isolated", "help"}


def survey(context: typer.Context, paths: list[str], *, compares: bool) -> None:
    """check and compare: judges the inputs, writes the report, exits."""
    values, settings = _values(context)
    options = _options(values)
    _check_files(values, paths)

    def options_for(path: str) -> Options:
        special = settings.for_path(path)
        given = {name: value for name, value in special.items() if not _typed(context, name)}
        return _options({**values, **given}) if given else options

    _allow_many_files()
    tables: dict[tuple[str, str], RowTable] | None = {} if values["save_rows"] else None
    report, interrupted = _judged(paths, options, options_for, compares, tables)
    if tables is not None and not interrupted:
        output.write_rows(values["save_rows"], tables)
    _finish(report, values, options.fail_on, interrupted=interrupted)


def _allow_many_files() -> None:
    """Every mapped tensor keeps a file open, and checkpoints have thousands."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def merge_saved(context: typer.Context, reports: list[str]) -> None:
    """report: adds saved reports up, renders the sum, exits."""
    values = dict(context.params)
    one_of("--format", values["format"], FORMATS)
    one_of("--fail-on", values["fail_on"], FAIL_ON)
    _check_files(values, reports)
    total = merge([_saved(path, as_input=True) for path in reports])
    _finish(total, values, values["fail_on"], interrupted=False)


def explain_rules(name: str | None, *, every: bool) -> None:
    """rule: one, all, or (with neither) a line each."""
    if name is None and not every:
        output.say("".join(f"{rule.code}  {rule.severity:7}  {rule.name}\n" for rule in rules.RULES.values()))
        return
    chosen = list(rules.RULES.values()) if every else [rules.find(name or "")]
    output.say("\n".join(f"{rule.code} {rule.name} ({rule.severity})\n\n{_wrapped(rule)}" for rule in chosen))


def _wrapped(rule: Rule[Any, Any, Any]) -> str:
    import textwrap

    parts = (("What", rule.what), ("Why", rule.why), ("Fix", rule.fix))
    columns = min(output.width(), 100)
    return "".join(
        textwrap.fill(text, columns, initial_indent=f"{title + ':':6}", subsequent_indent=" " * 6) + "\n"
        for title, text in parts
    )


def _judged(
    paths: list[str],
    options: Options,
    options_for: Callable[[str], Options],
    compares: bool,
    tables: dict[tuple[str, str], RowTable] | None,
) -> tuple[Report, bool]:
    """(what is known, whether Ctrl-C ended it)."""
    from nanhunt.cli.progress import Progress
    from nanhunt.scan.survey import Survey, builtin_batch

    done: list[Report] = []
    with Progress() as progress:
        survey = Survey(options, compares, options_for, progress.advance, tables)
        try:
            if not paths:
                done.append(survey.chosen(builtin_batch()))
            for report in survey.paths(paths):
                done.append(report)
        except KeyboardInterrupt as interrupt:
            print("nanhunt: interrupted; this is what was known.", file=sys.stderr)
            known = "; ".join((f"interrupted after {progress.done:,} bytes", *map(str, interrupt.args)))
            rest = ReadError("the rest", f"{known}.", "Run it again to judge it.")
            return merge((*done, *survey.unfinished, Report(errors=(rest,)))), True
    return merge(done), False


def _finish(report: Report, values: Mapping[str, Any], fail_on: str, *, interrupted: bool) -> None:
    report = _with_exit_code(report, values, fail_on)
    if interrupted:
        report = replace(report, exit_code=INTERRUPTED)
    for path in values["output"] or ():
        output.write(path, render(report, format_for(path), verbosity=_verbosity(values)))
    _append_summary(report, values)
    look: dict[str, Any] = {"width": output.width(), "color": output.has_color(), "ascii": output.is_ascii()}
    output.say(render(report, values["format"], verbosity=_verbosity(values), **look))
    if values["statistics"]:
        # Standard output stays what --format promises to programs.
        say = output.say if values["format"] == "text" else sys.stderr.write
        say("\n" + statistics(report, **look))
    raise typer.Exit(report.exit_code)


def _with_exit_code(report: Report, values: Mapping[str, Any], fail_on: str) -> Report:
    """The exit code once the baseline and --exit-zero have been heard; unreadable input is always an error."""
    if values["baseline"]:
        report = baseline.mark_known(report, _saved(values["baseline"], as_input=False))
        report = replace(report, exit_code=_code(report, fail_on))
    elif values.get("reports"):
        report = replace(report, exit_code=_code(report, fail_on))
    if values["exit_zero"] and report.exit_code == ExitCode.FINDINGS:
        report = replace(report, exit_code=int(ExitCode.CLEAN))
    return report


def _code(report: Report, fail_on: str) -> int:
    return int(ExitCode.ERROR) if report.errors else exit_code(report.tensors, fail_on)


def _append_summary(report: Report, values: Mapping[str, Any]) -> None:
    """GitHub shows on the run's page what a step appends to this file."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if values["format"] == "github" and summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(render(report, "markdown"))
        except OSError as error:
            raise NanhuntError(
                f"GITHUB_STEP_SUMMARY {summary} cannot be written: {error}", "Unset it."
            ) from None


def _verbosity(values: Mapping[str, Any]) -> int:
    return int(values["verbose"]) - int(values["quiet"])


def _saved(path: str, *, as_input: bool) -> Report:
    """A saved report. As an input, one that cannot be read becomes an error in the result."""
    try:
        return Report.from_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message, hint = (
            f"{path} is no saved report: {reason}",
            "Save one with `nanhunt check PATH --output report.json`.",
        )
        if not as_input:
            raise NanhuntError(message, hint) from None
        return Report(errors=(ReadError(path, message, hint),), exit_code=ExitCode.ERROR)


def _values(context: typer.Context) -> tuple[dict[str, Any], Settings]:
    """Parameters by name: command line > configuration file > defaults."""
    params = dict(context.params)
    settings = read_settings(params["config"], _kinds(context), isolated=params["isolated"])
    params |= {name: value for name, value in settings.values.items() if not _typed(context, name)}
    return params, settings


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)  # by name: which click Typer brings along is its own affair
    return source is not None and source.name == "COMMANDLINE"


def _kinds(context: typer.Context) -> dict[str, type]:
    """Keys a configuration file may hold, with the kind of their value, from the command's own signature."""
    hints = get_type_hints(inspect.unwrap(context.command.callback or survey))
    return {
        name.replace("_", "-"): _kind(hints[name]) for name in context.params if name not in _NOT_SETTINGS
    }


def _kind(hint: Any) -> type:
    """str, int, float, bool or list, of a hint that may be optional."""
    plain = next((arg for arg in get_args(hint) if arg is not type(None)), hint)
    kind: type = get_origin(plain) or plain
    return kind


def _options(values: Mapping[str, Any]) -> Options:
    """Validated Options. Raises NanhuntError for a value that is not one of those allowed."""
    values = {**values, **{name: _parted(values[name]) for name in ("dtype", "select", "ignore")}}
    one_of("--format", values["format"], FORMATS)
    rules.chosen(values["select"] or (), values["ignore"] or ())
    names = {field.name for field in fields(Options)}
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in names and value is not None
    }
    options = Options(**chosen)
    validate(options)
    return options


def _parted(items: Sequence[str] | None) -> list[str]:
    """Repeated options, each of which may also be a list with commas."""
    return [part.strip() for item in items or () for part in item.split(",") if part.strip()]


def _check_files(values: Mapping[str, Any], inputs: Iterable[str]) -> None:
    """Refuses outputs without a format, and outputs that would overwrite an input."""
    outputs = list(values["output"] or ())
    for path in outputs:
        format_for(path)
    rows = values.get("save_rows")
    if rows and not rows.lower().endswith((".npz", ".csv")):
        raise NanhuntError(f"--save-rows {rows}: the suffix does not say which format.", "Use .npz or .csv.")
    read = [values.get(name) for name in ("targets", "class_weights", "baseline")]
    used = {os.path.realpath(path) for path in [*inputs, *(each for each in read if each)] if path != "-"}
    for path in [*outputs, *([rows] if rows else [])]:
        folder = Path(path).parent
        if not folder.is_dir():  # said now, not when the work is done
            raise NanhuntError(f"{path} cannot be written: there is no folder {folder}.", "Make it first.")
        if os.path.realpath(path) in used:
            raise NanhuntError(f"{path} is an input and would be overwritten.", "Choose another output file.")
