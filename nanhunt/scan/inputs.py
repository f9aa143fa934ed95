"""Many inputs -> one Report. What cannot be read becomes an error in it, and the rest is still judged."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property

from nanhunt.errors import NanhuntError
from nanhunt.load import Container, NothingToCheck, NotNumbers, find, open_path, training_log
from nanhunt.load.call_order import CallOrder, read_call_order
from nanhunt.load.folder import Found
from nanhunt.load.listing import ahead, bytes_at, look_anew
from nanhunt.load.tensor import Tensor
from nanhunt.load.tree import coordinates, fits_layout
from nanhunt.operations.choosing import asked
from nanhunt.operations.operation import Described
from nanhunt.operations.run import Advance, Failed, Outcome, Run, Tables
from nanhunt.options import as_written
from nanhunt.parallel import Fastest
from nanhunt.results.exit_code import ExitCode
from nanhunt.results.report import NotLookedAt, NotRun, ReadError, Report, merge
from nanhunt.results.tensor import TensorReport
from nanhunt.results.verdict import decided
from nanhunt.scan.options import Options
from nanhunt.scan.work import Part

OptionsFor = Callable[[str], Options]
NOTHING: Mapping[str, Tensor] = {}


LARGE = 1 << 26
"""Bytes of a file from which on its blocks keep all workers busy."""


@dataclass
class Scan:
    """How to look at inputs."""

    options: Options
    compares: bool = False
    """Run every row, logits only."""
    options_for: OptionsFor | None = None
    """Options of one file, where they differ by path."""
    advance: Advance = lambda _: None
    expect: Callable[[int | None, int], None] = lambda _, __: None
    """Told of all bytes to come, once they are known (None: they cannot be), and of how many files."""
    tables: Tables | None = None
    """Filled in for --save-rows."""
    unfinished: list[Report] = field(default_factory=list)
    """What is known of the file that is being judged."""
    executor: Executor = field(default_factory=Fastest)
    """Who judges units of work."""
    operation: Described | None = None
    """What to judge tensors as, where the options cannot name it: a function that is given itself."""
    files: Executor | None = None
    """Who judges whole files, side by side; large ones are judged by blocks all the same."""
    fetches: bool = True
    """Whether what lies behind URLs is fetched here, and not by those who judge it."""
    part: Part | None = None
    """The files to judge; None: all of them."""
    told: Callable[[Report], None] = lambda _: None
    """Told of every judgement as soon as it is known."""
    _empty: dict[str, NothingToCheck] = field(default_factory=dict)
    """Files that hold nothing to judge."""

    def paths(self, paths: Iterable[str]) -> Iterator[Report]:
        """One report per input, as soon as it is known."""
        paths = list(paths)
        if self.options.first:
            from nanhunt.scan.first import first_bad

            yield from first_bad(paths, self.options, self._together)
            return
        for path in paths:
            look_anew(path)
        try:
            found = find(paths, self.options.exclude, fetches=self.fetches)
        except NanhuntError as error:
            if self.part is None or self.part.number == 1:  # once, not by everyone
                yield self._failed("", error)
            return
        _check_layout(found.files, self.options.layout)
        if self.part:
            found.files = self.part.of_files(found.files)
        sizes = [bytes_at(file) for file in found.files]
        times = max(1, len(self.options.dtype))
        self.expect(None if None in sizes else times * sum(size or 0 for size in sizes), len(sizes))
        calls, beside = self._beside(found)
        yield beside
        judged = False
        for report in self._files(found.files):
            judged = judged or bool(report.tensors or report.errors)
            yield _in_order(report, calls)
        if not judged and not self.part:
            # What holds nothing to judge is no error beside what does; alone and named, it is.
            yield merge(self._failed(file, self._empty[file]) for file in paths if file in self._empty)

    def _beside(self, found: Found) -> tuple[CallOrder, Report]:
        """What index files and the trainer's log say, and what else is not looked at."""
        names = [file for file, _ in found.passed_over]
        log = training_log.read_log(names, self.options.layout)
        rest = ((file, what) for file, what in found.passed_over if file not in log.files)
        return read_call_order(names), replace(_not_looked_at(*rest), logged=log.lines)

    def _together(self, found: Found) -> Report:
        """All that was found, as one."""
        calls, beside = self._beside(found)
        return merge((beside, *(_in_order(self.path(file), calls) for file in found.files)))

    def _files(self, files: Sequence[str]) -> Iterator[Report]:
        """A report for each: of small ones side by side first, where that is asked for, then of the others."""
        together: list[str] = []
        if self.files is not None and self.tables is None:
            together = [file for file in files if 0 < (bytes_at(file) or 0) < LARGE]
        if self.files is not None and len(together) > 1:
            options = [self._options_of(file) for file in together]
            work = functools.partial(_alone, self.compares, self.operation, self.options)
            for file, (report, empty) in zip(together, self.files.map(work, together, options), strict=True):
                self._empty |= {file: empty} if empty else {}
                self.advance(bytes_at(file) or 0)
                self.told(report)
                yield report
            done = set(together)
            files = [file for file in files if file not in done]
        for file in ahead(files):
            yield self.path(file)

    def _options_of(self, file: str) -> Options:
        return self.options_for(file) if self.options_for else self.options

    def path(self, file: str) -> Report:
        """One file; one that holds nothing to judge is named as not looked at."""
        options = self._options_of(file)
        self.unfinished = []
        try:
            container = open_path(file, options.stored_dtype)
            return self.container(container, self.operation or asked(options), options=options)
        except NothingToCheck as error:
            self._empty[file] = error
            return _not_looked_at((file, "no floating-point numbers"))
        except NanhuntError as error:
            return merge((*self.unfinished, self._failed(file, error)))

    def without_a_file(self) -> Report:
        """The batch that the operation has for showing itself. Raises NanhuntError where it has none."""
        operation = asked(self.options)
        if operation.batch is None:
            raise NanhuntError(f"--op {operation.name} has no batch of its own to show.", "Name a PATH.")
        return self.container(Container("", {}, "memory"), operation, operation.batch())

    def container(
        self,
        container: Container,
        operation: Described,
        given: Mapping[str, Tensor] = NOTHING,
        options: Options | None = None,
    ) -> Report:
        """The tensors of a container, and what of it cannot be read or is not looked at.

        ``given``: tensors by role that are said in Python. Raises NanhuntError as ``Described.judge`` does.
        """
        options = options or self.options
        run = Run(options, self.executor, self.compares, self.advance, self.tables)
        self.unfinished = reports = []
        for outcome in operation.judge(container, given, run):  # one by one: an interrupt loses none
            reports.append(self._report(options, outcome))
            self.told(reports[-1])
        self.unfinished = []
        if operation.looks_at_everything:
            unread = [(f"{container.file}:{name}", what) for name, what in container.unread.items()]
            named = tuple(NotRun(container.file, name) for name in container.not_run)
            reports += [self._refused(container, options), _not_looked_at(*unread), Report(not_run=named)]
        return merge(reports)

    def _refused(self, container: Container, options: Options) -> Report:
        """What could not be read beside what was; text and objects are nobody's logits."""
        missing = merge(self._failed(container.file, error) for error in container.missing)
        if options.logits:
            return missing
        refused = container.refused.items()
        tensors = [(name, error) for name, error in refused if not isinstance(error, NotNumbers)]
        return missing + merge(self._failed(f"{container.file}:{name}", error) for name, error in tensors)

    @cached_property
    def _options(self) -> dict[str, object]:
        """As they stand in every report: one object, so that merging sees at once that they agree."""
        return as_written(self.options)

    def _report(self, options: Options, outcome: Outcome) -> Report:
        if isinstance(outcome, Failed):
            return self._failed(outcome.label, outcome.error)
        given = self._options if options == self.options else as_written(options)
        return decided(Report(self._options, (_placed(outcome, given, options.layout),)))

    def _failed(self, file: str, error: Exception) -> Report:
        hint = error.hint if isinstance(error, NanhuntError) else "Check that the file is readable and whole."
        message = str(error) or type(error).__name__
        return Report(self._options, (), (ReadError(file, message, hint),), ExitCode.ERROR)


def _alone(
    compares: bool, operation: Described | None, common: Options, file: str, options: Options
) -> tuple[Report, NothingToCheck | None]:
    """One file, judged by whoever unpickles this; and why there is nothing to judge in it, if so."""
    scan = Scan(common, compares, lambda _: options, executor=Fastest(1), operation=operation)
    return scan.path(file), scan._empty.get(file)


def _not_looked_at(*parts: tuple[str, str]) -> Report:
    return Report(not_looked_at=tuple(NotLookedAt(file, what) for file, what in parts))


def _placed(tensor: TensorReport, options: dict[str, object], layout: str | None) -> TensorReport:
    """A judgement that knows under which options it was made, and where in the run its tensor stands."""
    return replace(tensor, options=options, coordinates=coordinates(tensor.file, tensor.tensor, layout))


def _in_order(report: Report, calls: CallOrder) -> Report:
    """With the numbers of calls that index files tell; what the names themselves say goes before."""
    if not calls.by_folder:
        return report

    def numbered(tensor: TensorReport) -> TensorReport:
        call = calls.of(tensor.file)
        at = tensor.coordinates
        return tensor if call is None else replace(tensor, coordinates={"order": call, **at})

    return replace(report, tensors=tuple(map(numbered, report.tensors)))


def _check_layout(files: Sequence[str], layout: str | None) -> None:
    """Raises NanhuntError where nothing lies as the user says."""
    if layout and not any(fits_layout(file, layout) for file in files):
        example = f", {files[0]} for one" if files else ""
        raise NanhuntError(f"--layout {layout} fits no file{example}.", "Write it as the files are called.")
