"""Many inputs -> one Report. What cannot be read becomes an error in it, and the rest is still judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property

from nanhunt.errors import NanhuntError
from nanhunt.load import Container, NothingToCheck, NotNumbers, find, open_path
from nanhunt.load.source import bytes_at
from nanhunt.load.tensor import Tensor
from nanhunt.load.tree import coordinates, fits_layout
<<<<<<< HEAD
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
=======
from nanhunt.operations import registry
from nanhunt.operations.operation import Described
from nanhunt.operations.run import Advance, Failed, Outcome, Run, Tables
>>>>>>> main
from nanhunt.options import as_written
from nanhunt.parallel import Fastest
from nanhunt.results.report import ExitCode, NotLookedAt, ReadError, Report, TensorReport, merge
from nanhunt.results.verdict import decided
from nanhunt.scan.options import Options

OptionsFor = Callable[[str], Options]
NOTHING: Mapping[str, Tensor] = {}


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
    tables: Tables | None = None
    """Filled in for --save-rows."""
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
<<<<<<< HEAD
            operation = asked(options.op, options.role)
            if operation is not None:
                return self.operation(container, operation, options)
            return self.by_name(container, options)
=======
            return self.container(container, registry.find(options.op), options=options)
>>>>>>> main
        except NothingToCheck as error:
            self._empty[file] = error
            return _not_looked_at((file, "no floating-point numbers"))
        except NanhuntError as error:
            return merge((*self.unfinished, self._failed(file, error)))

<<<<<<< HEAD
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
=======
    def without_a_file(self) -> Report:
        """The batch that the operation has for showing itself. Raises NanhuntError where it has none."""
        operation = registry.find(self.options.op)
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
        self.unfinished = []
        if operation.looks_at_everything:
            unread = [(f"{container.file}:{name}", what) for name, what in container.unread.items()]
            reports += [self._refused(container, options), _not_looked_at(*unread)]
>>>>>>> main
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


def _not_looked_at(*parts: tuple[str, str]) -> Report:
    return Report(not_looked_at=tuple(NotLookedAt(file, what) for file, what in parts))


def _placed(tensor: TensorReport, options: dict[str, object], layout: str | None) -> TensorReport:
    """A judgement that knows under which options it was made, and where in the run its tensor stands."""
    return replace(tensor, options=options, coordinates=coordinates(tensor.file, tensor.tensor, layout))


def _check_layout(files: Sequence[str], layout: str | None) -> None:
    """Raises NanhuntError where nothing lies as the user says."""
    if layout and not any(fits_layout(file, layout) for file in files):
        example = f", {files[0]} for one" if files else ""
        raise NanhuntError(f"--layout {layout} fits no file{example}.", "Write it as the files are called.")
