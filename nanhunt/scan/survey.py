"""Many inputs -> one Report. What cannot be read becomes an error in it, and the rest is still judged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nanhunt.errors import NanhuntError
from nanhunt.load import Container, NothingToCheck, NotNumbers, find, open_path
from nanhunt.load.source import bytes_at
from nanhunt.load.tensor import Tensor
from nanhunt.load.tree import coordinates, fits_layout
from nanhunt.operations import rules
from nanhunt.operations.assignment import assignments, spoken
from nanhunt.operations.choosing import asked, by_names, with_roles
from nanhunt.operations.cross_entropy.diagnose import diagnose
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.recognise import Recognised, recognise
from nanhunt.operations.cross_entropy.roles import Chosen, Problem, choose
from nanhunt.operations.cross_entropy.sweep import RowTable
from nanhunt.operations.cross_entropy.targets import read_weights
from nanhunt.operations.operation import Operation
from nanhunt.operations.values.check import check_values
from nanhunt.options import as_written
from nanhunt.parallel import Fastest
from nanhunt.results.report import ExitCode, NotLookedAt, ReadError, Report, TensorReport, merge
from nanhunt.results.verdict import decided
from nanhunt.scan.options import Options

Advance = Callable[[int], None]
OptionsFor = Callable[[str], Options]


@dataclass
class Survey:
    """How to look at inputs."""

    options: Options
    compares: bool = False
    """Run every row, logits only."""
    options_for: OptionsFor | None = None
    """Options of one file, where they differ by path."""
    advance: Advance = lambda _: None
    expect: Callable[[int | None], None] = lambda _: None
    """Told of all bytes to come, once they are known; None: they cannot be."""
    tables: dict[tuple[str, str], RowTable] | None = None
    """Filled in for --save-rows, by (tensor label, dtype)."""
    unfinished: list[Report] = field(default_factory=list)
    """What is known of the file that is being judged."""
    executor: Executor = field(default_factory=Fastest)
    """Who judges units of work."""
    _empty: dict[str, NothingToCheck] = field(default_factory=dict)
    """Files that hold nothing to judge."""

    def paths(self, paths: Iterable[str]) -> Iterator[Report]:
        """One report per input, as soon as it is known."""
        paths = list(paths)
        try:
            found = find(paths, self.options.exclude)
        except NanhuntError as error:
            yield self._failed("", error)
            return
        _check_layout(found.files, self.options.layout)
        yield _not_looked_at(*found.passed_over)
        sizes = [bytes_at(file) for file in found.files]
        times = max(1, len(self.options.dtype))
        self.expect(None if None in sizes else times * sum(size or 0 for size in sizes))
        judged = False
        for file in found.files:
            report = self.path(file)
            judged = judged or bool(report.tensors or report.errors)
            yield report
        if not judged:
            # What holds nothing to judge is no error beside what does; alone and named, it is.
            yield merge(self._failed(file, self._empty[file]) for file in paths if file in self._empty)

    def path(self, file: str) -> Report:
        """One file; one that holds nothing to judge is named as not looked at."""
        options = self.options_for(file) if self.options_for else self.options
        self.unfinished = []
        try:
            container = open_path(file, options.stored_dtype)
            operation = asked(options.op, options.role)
            if operation is not None:
                return self.operation(container, operation, options)
            return self.by_name(container, options)
        except NothingToCheck as error:
            self._empty[file] = error
            return _not_looked_at((file, "no floating-point numbers"))
        except NanhuntError as error:
            return merge((*self.unfinished, self._failed(file, error)))

    def by_name(self, container: Container, options: Options) -> Report:
        """What the names of the tensors say that they are; cross entropy where there are logits, else values."""
        options = with_roles(options, options.role)
        chosen = choose(container, options)
        if options.op or options.logits:
            return self.of(container, chosen, options)
        choices, undecided = by_names(container)
        reports, used, notes = [], set[str](), dict(undecided)
        for choice in choices:
            try:
                reports.append(self._as(choice.operation, choice.tensors, options, choice.note))
                used |= {tensor.label for tensor in choice.tensors.values()}
            except NanhuntError as error:  # names alone are no reason to refuse numbers
                main = choice.operation.main(choice.tensors)
                notes[main.label] = (f"{choice.note}, and cannot be judged so: {error}",)
        rest = replace(
            chosen,
            problems=tuple(each for each in chosen.problems if each.logits.label not in used),
            values=tuple(each for each in chosen.values if each.label not in used),
            notes={**chosen.notes, **notes},
        )
        if not (reports and self.compares and not rest.problems):
            reports.append(self.of(container, rest, options))
        return merge(reports)

    def of(self, container: Container, chosen: Chosen, options: Options | None = None) -> Report:
        """Tensors of a container whose roles are known, and what of it cannot be read or is not looked at."""
        unread = [(f"{container.file}:{name}", what) for name, what in container.unread.items()]
        refused = self._refused(container, options or self.options)
        return merge((self.chosen(chosen, options), refused, _not_looked_at(*unread)))

    def operation(self, container: Container, operation: Operation, options: Options) -> Report:
        """One operation on every complete set of its tensors, in every dtype asked for."""
        said = spoken(operation, options, options.role)
        reports: list[Report] = []
        for tensors in assignments(container, operation, said, options):
            self.unfinished = reports
            reports.append(self._as(operation, tensors, options))
        self.unfinished = []
        return merge(reports)

    def _as(
        self, operation: Operation, tensors: Mapping[str, Tensor], options: Options, note: str = ""
    ) -> Report:
        """One operation on one set of tensors, in every dtype asked for."""
        # Loaded here because they bring torch, which healthy logits do without.
        from nanhunt.operations.findings import judged
        from nanhunt.operations.problem import problem_of

        codes = rules.chosen(operation.name, options.select, options.ignore)
        reports = []
        for dtype in _dtypes(operation.main(tensors), options):
            problem = problem_of(operation, tensors, dtype, options, codes, options.max_rows)
            found = judged(problem, self.executor, self.advance, compares=self.compares)
            notes = (*filter(None, (note,)), *found.notes)
            reports.append(self._report(options, [replace(found, notes=notes)]))
        return merge(reports)

    def _refused(self, container: Container, options: Options) -> Report:
        """What could not be read beside what was; text and objects are nobody's logits."""
        missing = merge(self._failed(container.file, error) for error in container.missing)
        if options.logits:
            return missing
        refused = container.refused.items()
        tensors = [(name, error) for name, error in refused if not isinstance(error, NotNumbers)]
        return missing + merge(self._failed(f"{container.file}:{name}", error) for name, error in tensors)

    def chosen(self, chosen: Chosen, options: Options | None = None) -> Report:
        """Tensors whose roles are known."""
        options = options or self.options
        reports: list[Report] = []
        self.unfinished = reports
        if self.compares and not chosen.problems:
            raise _nothing_to_compare(*(tensor.label for tensor in chosen.values[:5]))
        judged = [self._tensor(chosen, problem, options) for problem in chosen.problems]
        if not self.compares:
            judged.append(self._values(chosen.values, chosen.notes, options))
        for report in itertools.chain.from_iterable(judged):
            reports.append(report)  # one by one: an interrupt loses none
        self.unfinished = []
        return merge(reports)

    def _tensor(self, chosen: Chosen, problem: Problem, options: Options) -> Iterator[Report]:
        """Logits, a report per dtype; as numbers only where no softmax is known to follow."""
        tensor = problem.logits
        try:
            _check_shape(tensor, options)
            seen = recognise(problem, options)
            if seen.softmax:
                for dtype in _dtypes(tensor, options):
                    found = self._logits(chosen, tensor, dtype, seen)
                    yield self._report(options, [replace(found, notes=(*seen.notes, *found.notes))])
            elif self.compares:
                raise _nothing_to_compare(tensor.label, *seen.notes)
            else:
                yield from self._values((tensor,), {tensor.label: seen.notes}, options)
        except (NanhuntError, OSError, MemoryError) as error:
            yield self._failed(tensor.label, error)

    def _logits(self, chosen: Chosen, tensor: Tensor, dtype: str, seen: Recognised) -> TensorReport:
        options = seen.options
        classes = tensor.shape[options.class_axis]
        weights = None if chosen.class_weights is None else read_weights(chosen.class_weights, classes)
        codes = rules.chosen("cross-entropy", options.select, options.ignore)
        job = Job(tensor, dtype, seen.targets, weights, options, codes)
        table = None if self.tables is None else self.tables.setdefault((tensor.label, dtype), RowTable())
        every_row = self.compares or table is not None
        return diagnose(job, self.executor, every_row=every_row, table=table, advance=self.advance)

    def _values(
        self, tensors: Sequence[Tensor], notes: Mapping[str, tuple[str, ...]], options: Options
    ) -> Iterator[Report]:
        """The health of tensors that are not logits; ``notes`` by label."""
        codes = rules.chosen("values", options.select, options.ignore)

        def dtypes(tensor: Tensor) -> tuple[str, ...]:
            return _dtypes(tensor, options)

        for tensor, found in check_values(tensors, dtypes, options, codes, self.advance, self.executor):
            if isinstance(found, Exception):
                yield self._failed(tensor.label, found)
                continue
            said = notes.get(tensor.label, ())
            yield self._report(options, [replace(each, notes=(*said, *each.notes)) for each in found])

    @cached_property
    def _options(self) -> dict[str, object]:
        """As they stand in every report: one object, so that merging sees at once that they agree."""
        return as_written(self.options)

    def _report(self, options: Options, tensors: list[TensorReport]) -> Report:
        given = self._options if options == self.options else as_written(options)
        placed = tuple(_placed(tensor, given, options.layout) for tensor in tensors)
        return decided(Report(self._options, placed))

    def _failed(self, file: str, error: Exception) -> Report:
        hint = error.hint if isinstance(error, NanhuntError) else "Check that the file is readable and whole."
        message = str(error) or type(error).__name__
        return Report(self._options, (), (ReadError(file, message, hint),), ExitCode.ERROR)


def _not_looked_at(*parts: tuple[str, str]) -> Report:
    return Report(not_looked_at=tuple(NotLookedAt(file, what) for file, what in parts))


def _nothing_to_compare(label: str, *more: str) -> NanhuntError:
    return NanhuntError(
        f"Nothing here looks like logits: {', '.join((label, *more))}.", "Name them with --logits NAME."
    )


def _placed(tensor: TensorReport, options: dict[str, object], layout: str | None) -> TensorReport:
    """A judgement that knows what it was judged as, under which options, and where in the run."""
    operation = "values" if tensor.role == "values" else tensor.operation
    where = coordinates(tensor.file, tensor.tensor, layout)
    return replace(tensor, operation=operation, options=options, coordinates=where)


def _check_layout(files: Sequence[str], layout: str | None) -> None:
    """Raises NanhuntError where nothing lies as the user says."""
    if layout and not any(fits_layout(file, layout) for file in files):
        example = f", {files[0]} for one" if files else ""
        raise NanhuntError(f"--layout {layout} fits no file{example}.", "Write it as the files are called.")


def _dtypes(tensor: Tensor, options: Options) -> tuple[str, ...]:
    return tuple(options.dtype) or (tensor.dtype,)


def _check_shape(tensor: Tensor, options: Options) -> None:
    if not tensor.shape:
        raise NanhuntError(
            f"{tensor.label} is a single number, not rows of logits.", "Logits need a class dimension."
        )
    if not -len(tensor.shape) <= options.class_axis < len(tensor.shape):
        raise NanhuntError(
            f"{tensor.label} has shape {tensor.shape}, so there is no --class-axis {options.class_axis}.",
            f"Choose one of {-len(tensor.shape)}..{len(tensor.shape) - 1}.",
        )
    if tensor.shape[options.class_axis] == 0:
        raise NanhuntError(
            f"{tensor.label} has shape {tensor.shape}: 0 classes.",
            "A softmax needs at least one class; check how the file was written, or --class-axis.",
        )


def builtin_batch() -> Chosen:
    """The articles' 3 x 3 batch: one row whose exp overflows in every format."""
    logits = np.array([[2.0, 1.0, 0.1], [1000.0, 1.0, -1000.0], [3.0, 2.0, 1.0]], dtype=np.float32)
    labels = np.array([0, 2, 1])
    file = "the articles' 3 x 3 batch (built in)"
    targets = Tensor(file, "targets", "int64", labels.shape, lambda: labels)
    return Chosen((Problem(Tensor(file, "", "float32", logits.shape, lambda: logits), targets, "the batch"),))
