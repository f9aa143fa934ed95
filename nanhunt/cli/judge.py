"""One command from its parsed options to its exit code: judging, rendering, files."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nanhunt.cli import output as files
from nanhunt.cli import process
from nanhunt.cli.options import Given, OutputOptions, ScanOutputOptions, WriteOptions
from nanhunt.dtypes.start import start_in_deleted_folder
from nanhunt.errors import NanhuntError
from nanhunt.render import format_for, render, statistics
from nanhunt.results import baseline, verdict
from nanhunt.results.exit_code import INTERRUPTED, ExitCode
from nanhunt.results.options import ReportOptions
from nanhunt.results.origin import kept_apart
from nanhunt.results.report import ReadError, Report, merge
from nanhunt.scan.options import Options
from nanhunt.scan.work import WorkOptions, part_of, workers

if TYPE_CHECKING:
    from nanhunt.operations.run import Tables
    from nanhunt.scan.inputs import Scan

LEAST_ADDRESS_SPACE = 128 << 20
"""Bytes: measured, with some room."""


def judge(given: Given, paths: list[str], *, compares: bool) -> None:
    """check and compare: judges the inputs, writes the report, exits."""
    options, output, work = given.part(Options), given.part(ScanOutputOptions), given.part(WorkOptions)
    from nanhunt.operations import rules  # the catalogue: nothing that --help needs
    from nanhunt.operations.choosing import check_names, check_options
    from nanhunt.scan.inputs import Scan

    check_options(given.typed, options)
    check_names(options)
    rules.check((*options.select, *options.ignore))
    read = (options.targets, options.class_weights, output.baseline)
    check_files(output, [*paths, *(path for path in read if path)])

    def options_for(path: str) -> Options:
        return given.part(Options, path) if given.configuration.for_path(path) else options

    set_limits()
    tables: Tables | None = {} if output.save_rows else None
    scan = Scan(options, compares, options_for, tables=tables, part=part_of(work.shard))
    if streams := _streams(output):
        scan.told = functools.partial(_tell, int(output.verbose))
    report, interrupted = _judged(paths, scan, work)
    if output.save_rows and tables is not None and not interrupted:
        files.write_rows(output.save_rows, tables)
    report = _with_known(report, output)
    _finish(report, output, interrupted=interrupted, streamed=streams)


def _streams(output: OutputOptions) -> bool:
    """Whether standard output gets a line a tensor while the scan runs; what is known already shows at the end."""
    return output.format == "jsonl" and not output.baseline


def _tell(verbosity: int, report: Report) -> None:
    from nanhunt.render import jsonl

    for line in jsonl.tensors(report, verbosity):
        files.say(line)


def only_one(paths: list[str]) -> list[str]:
    """What compare takes. Raises NanhuntError for several: their tables would not fit side by side."""
    if len(paths) > 1:
        raise NanhuntError(
            f"compare takes one PATH, and {len(paths)} were given.",
            f"To see what differs between two: nanhunt diff {' '.join(paths[:2])}\n"
            f"  To judge all of them: nanhunt check {' '.join(paths)}",
        )
    return paths


def set_limits() -> None:
    """Every mapped tensor keeps a file open, and checkpoints have thousands; and NumPy needs room to start in.

    Raises NanhuntError where the address space is too small for NumPy, whose libraries would end the process.
    """
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < LEAST_ADDRESS_SPACE:
        raise NanhuntError(
            f"Only {space >> 20:,} MiB of address space are allowed (ulimit -v), too few to start NumPy.",
            f"Allow {LEAST_ADDRESS_SPACE >> 20} MiB at least.",
        )
    if space != resource.RLIM_INFINITY:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of its threads reserves tens of MiB
    start_in_deleted_folder()


def merge_saved(given: Given, reports: list[str]) -> None:
    """report: adds saved reports up, renders the sum, exits."""
    output = given.part(OutputOptions)
    check_files(output, [*reports, *([output.baseline] if output.baseline else [])])
    total = merge(kept_apart({path: _saved(path, as_input=True) for path in reports}))
    # Every tensor is judged as it was, unless one threshold for all of them is asked for.
    asked = "fail_on" in given.typed
    total = verdict.under(total, given.part(ReportOptions).fail_on) if asked else verdict.decided(total)
    _finish(_with_known(total, output), output, interrupted=False)


def _judged(paths: list[str], scan: Scan, work: WorkOptions) -> tuple[Report, bool]:
    """(what is known, whether Ctrl-C ended it)."""
    from nanhunt.cli.progress import Progress

    done: list[Report] = []
    those = workers(work)
    scan.executor, scan.files, scan.fetches = those.blocks, those.files, not those.are_elsewhere
    with Progress() as progress, those.close:
        scan.advance, scan.expect = progress.advance, progress.expect
        try:
            if not paths:
                done.append(scan.without_a_file())
            for report in scan.paths(paths):
                done.append(report)
                progress.finished(len(done) - 1)  # the first says what was found
        except KeyboardInterrupt as interrupt:
            process.complain("interrupted; this is what was known.")
            known = "; ".join((f"interrupted after {progress.done:,} bytes", *map(str, interrupt.args)))
            rest = ReadError("the rest", f"{known}.", "Run it again to judge it.")
            return merge((*done, *scan.unfinished, Report(errors=(rest,)))), True
    return merge(done), False


def _finish(report: Report, output: OutputOptions, *, interrupted: bool, streamed: bool = False) -> None:
    if interrupted:
        report = replace(report, exit_code=INTERRUPTED)
    verbosity = int(output.verbose) - int(output.quiet)
    for path in output.output:
        files.write(path, render(report, format_for(path), verbosity=verbosity))
    if output.format == "github":
        append_summary(render(report, "markdown"))
    look: dict[str, Any] = {"width": files.width(), "color": files.has_color(), "ascii": files.is_ascii()}
    if streamed:
        from nanhunt.render import jsonl

        files.say(jsonl.end(report, verbosity))
    else:
        files.say(render(report, output.format, verbosity=verbosity, **look))
    if output.statistics:
        # Standard output stays what --format promises to programs.
        say = files.say if output.format == "text" else process.say
        say("\n" + statistics(report, **look))
    raise typer.Exit(report.exit_code)


def _with_known(report: Report, output: OutputOptions) -> Report:
    """The exit code under the baseline and --exit-zero; unreadable input is always an error."""
    if output.baseline:
        report = baseline.mark_known(report, _saved(output.baseline, as_input=False))
    if output.exit_zero and report.exit_code == ExitCode.FINDINGS:
        report = replace(report, exit_code=int(ExitCode.CLEAN))
    return report


def append_summary(text: str) -> None:
    """GitHub shows on the run's page what a step appends to this file. Raises NanhuntError where it cannot be."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise NanhuntError(
                f"GITHUB_STEP_SUMMARY {summary} cannot be written: {error.strerror or error}.", "Unset it."
            ) from None


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


def check_files(output: WriteOptions, inputs: Iterable[str]) -> None:
    """Raises NanhuntError for outputs without a format, and for outputs that would overwrite an input."""
    for path in output.output:
        format_for(path)
    rows = output.save_rows if isinstance(output, ScanOutputOptions) else None
    if rows and not rows.lower().endswith((".npz", ".csv")):
        raise NanhuntError(f"--save-rows {rows}: the suffix does not say which format.", "Use .npz or .csv.")
    used = {os.path.realpath(path) for path in inputs if path != "-"}
    for path in (*output.output, *([rows] if rows else [])):
        folder = Path(path).parent
        if not folder.is_dir():  # said now, not when the work is done
            raise NanhuntError(f"{path} cannot be written: there is no folder {folder}.", "Make it first.")
        if os.path.realpath(path) in used:
            raise NanhuntError(f"{path} is an input and would be overwritten.", "Choose another output file.")
