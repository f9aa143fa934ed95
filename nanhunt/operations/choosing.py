"""Which operation a container is about where --op does not say: only what the names of its tensors say, never shapes.

An operation is chosen where all tensors that it needs, two at least, stand together under names of their roles. A
single name says too little (hidden_states is in every dump of a model), and logits belong to cross entropy.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.options import ReadOptions
from nanhunt.load.roles import by_spot, complete_sets
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import listed
from nanhunt.operations import registry
from nanhunt.operations.assignment import Assignment, meant_role, parted, spoken_name
from nanhunt.operations.cross_entropy.tensors import LOGITS, TARGETS
from nanhunt.operations.operation import Described, Operation
from nanhunt.operations.options import JudgeOptions
from nanhunt.operations.registry import OperationOptions
from nanhunt.operations.run import Failed, Outcome, Run
from nanhunt.options import checked, declared, one_of


@dataclass(frozen=True)
class Choice:
    """One operation on tensors whose names are those of its roles."""

    operation: Operation
    tensors: Assignment
    also: tuple[str, ...]
    """Other operations whose tensors are all there too: some of these, or others that tell an operation by name."""

    @property
    def note(self) -> str:
        """What was chosen, why, and what else was possible."""
        names = _needed(self.operation, self.tensors)
        also = f"; also possible: {', '.join(f'--op {each}' for each in self.also)}" if self.also else ""
        return f"--op {self.operation.name} by name: {listed(names)} stand together{also}"

    def judged(self, run: Run) -> Iterator[Outcome]:
        """Its judgements, which say why they were made."""
        for found in self.operation.judge(Container("", {}, "memory"), self.tensors, run):
            yield found if isinstance(found, Failed) else replace(found, notes=(self.note, *found.notes))


def by_names(container: Container) -> tuple[list[Choice], Mapping[str, tuple[str, ...]]]:
    """(what the names say, in file order; what is to be said where they say two things alike, by a tensor's label).

    Of several operations the one that explains most tensors is chosen: ppo, and not kl, where all of ppo's are there.
    """
    choices, undecided = [], {}
    for tensors in by_spot(container.tensors.values()).values():
        if len(tensors) < 2:  # tells nothing, and most files need no operation to be loaded
            continue
        here = replace(container, tensors={tensor.name: tensor for tensor in tensors})
        found = [(each, one) for each in _operations() for one in complete_sets(here, each.roles)]
        named = sorted((one for one in found if _is_telling(*one)), key=lambda one: -len(one[1]))
        if not named:
            continue
        operation, best = named[0]
        rivals = [other.name for other, one in named[1:] if len(one) == len(best)]
        if rivals:
            label = operation.main(best).label
            undecided[label] = (f"by name this could be {' or '.join((operation.name, *rivals))}: say --op",)
            continue
        used = {tensor.name for tensor in best.values()}
        also = dict.fromkeys(
            other.name for other, one in found
            if other is not operation and (used & {tensor.name for tensor in one.values()} or _is_telling(other, one))
        )  # fmt: skip
        choices.append(Choice(operation, best, tuple(also)))
    return choices, undecided


def _operations() -> Iterator[Operation]:
    return (each for each in registry.OPERATIONS.values() if isinstance(each, Operation))


def _needed(operation: Operation, tensors: Assignment) -> list[str]:
    """Those of the roles played that the operation could not do without."""
    played = [role for role in operation.roles if role.name in tensors]
    return [role.name for role in played if role.required or role.replaces]


def _is_telling(operation: Operation, tensors: Assignment) -> bool:
    needed = _needed(operation, tensors)
    return len(needed) > 1 and LOGITS.name not in needed


def asked(options: OperationOptions) -> Described:
    """The operation that --op names, or else the only one that has all the roles of --role, or else what names say.

    Raises NanhuntError for a name that no operation has, and for roles that several have.
    """
    if options.function:
        return of_code(options.function, options.stable)
    if options.op is not None or not options.role:
        return by_name() if options.op is None else registry.find(options.op)
    names = {parted(text)[0] for text in options.role}
    roles = {each.name: {spoken_name(role) for role in each.roles} for each in registry.OPERATIONS.values()}
    for name in names:
        one_of("--role", name, tuple(sorted(set().union(*roles.values()))))
    having = [each for each, known in roles.items() if names <= known]
    if registry.DEFAULT in having:
        return by_name()
    if len(having) != 1:
        told = f"{' and '.join(having)} have" if having else "No operation has"
        raise NanhuntError(
            f"{told} {'the role' if len(names) == 1 else 'all the roles'} {', '.join(sorted(names))}.",
            "Say which operation is meant: --op NAME; `nanhunt op` lists them.",
        )
    return registry.find(having[0])


def check_options(said: Iterable[str], options: OperationOptions) -> None:
    """Raises NanhuntError for an operation that nobody knows, and for an option, by field name, that it does not have.

    Where nothing says which operation is meant, names of tensors do, file by file, and any option may be for one.
    """
    if options.stable and not options.function:
        raise NanhuntError(
            "--stable is compared with --function, and there is none.", "Add --function FILE.py:NAME."
        )
    if options.function and options.op not in (None, "function"):
        raise NanhuntError(
            f"--function is judged as itself, and --op {options.op} asks for another operation.",
            "Leave one of them out.",
        )
    name = "function" if options.function else options.op
    if name is None:
        return
    operation = registry.find(name)
    known = declared(OperationOptions)
    for option in (known[each] for each in said if each in known and not _takes(operation, each)):
        owners = [each.name for each in registry.OPERATIONS.values() if _takes(each, option.name)]
        own = [known[each].flag for each in declared(operation.options) if each in known]
        own = [flag for flag in own if flag not in {known[each].flag for each in declared(JudgeOptions)}]
        raise NanhuntError(
            f"{option.flag} means nothing to --op {name}: it is an option of {listed(owners)}.",
            f"{name} takes {', '.join(own) or 'no options of its own'}; see nanhunt op {name}.",
        )


def check_names(options: OperationOptions) -> None:
    """Raises NanhuntError, before any file is read, for a function that cannot be had and for a role that is none."""
    operation = asked(options)
    for text in options.role:
        roles = {name: None for role in operation.roles for name in (role.name, spoken_name(role))}
        one_of("--role", meant_role(operation, parted(text)[0]), tuple(roles))


def _takes(operation: Described, option: str) -> bool:
    """Whether an option, by field name, says something to that operation."""
    if option in (LOGITS.name, TARGETS.name):
        return option in {role.name for role in operation.roles}
    if option in ("class_weights", "class_axis"):
        return operation.name == registry.DEFAULT
    return any(option in declared(each) for each in (operation.options, JudgeOptions, ReadOptions))


def of_code(function: Callable[..., Any] | str, stable: Callable[..., Any] | str | None = None) -> Described:
    """Judging the user's own function, given itself or as FILE.py:NAME. Raises NanhuntError where it cannot be had."""
    from nanhunt.operations.function.operation import user_function  # imports what the user's file imports

    return user_function(function, stable)


class ByName(Described):
    """What the names of the tensors say that they are; cross entropy where there are logits, else values."""

    def judge(self, container: Container, given: Mapping[str, Tensor], run: Run) -> Iterator[Outcome]:
        """Each set of names that tells an operation, then logits and values as cross entropy has it."""
        from nanhunt.operations.cross_entropy.judge import judge

        if given or run.options.logits or run.options.role:
            yield from judge(container, given, run)
            return
        if "op" in container.told:
            yield from _as_told(container, run)
            return
        choices, notes = by_names(container)
        used, said = set[str](), dict(notes)
        for choice in choices:
            try:
                yield from choice.judged(run)
                used |= {tensor.label for tensor in choice.tensors.values()}
            except NanhuntError as error:  # names alone are no reason to refuse numbers
                main = choice.operation.main(choice.tensors)
                said[main.label] = (f"{choice.note}, and cannot be judged so: {error}",)
        yield from judge(container, given, run, frozenset(used), said)


_TELLS = ("reduction", "ignore_index", "causal", "scale", "norm", "eps", "p", "std", "temperature")
"""Options that a capture may hold; where the user says otherwise, that counts."""


def _as_told(container: Container, run: Run) -> Iterator[Outcome]:
    """A capture, as the operation that ``nanhunt run`` has named in it. Raises NanhuntError for one that is damaged."""
    try:
        said = dict(json.loads(container.told.get("options", "{}")))
    except (ValueError, TypeError):
        raise NanhuntError(
            f"{container.file} is a damaged capture: its options are not JSON.", "Capture it anew."
        ) from None
    known = declared(OperationOptions)
    usual = {name: known[name].default for name in _TELLS}
    told = {
        name: checked(known[name], said[name])
        for name in said.keys() & usual.keys()
        if getattr(run.options, name) == usual[name]
    }
    operation = registry.find(container.told["op"])
    yield from operation.judge(container, {}, replace(run, options=replace(run.options, **told)))


@functools.cache
def by_name() -> ByName:
    """What is judged where nothing says which operation; loaded when it is asked for, as the operations are."""
    default = registry.OPERATIONS[registry.DEFAULT]
    return ByName(
        name=default.name, what=default.what, roles=default.roles, options=default.options, forms=default.forms,
        rules=default.rules, looks_at_everything=True, batch=default.batch,
    )  # fmt: skip
