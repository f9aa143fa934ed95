"""The tensors of a container -> judgements: logits under a loss, everything else as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.memory import FILE
from nanhunt.load.reference import tensor_at
from nanhunt.load.tensor import FLOATING, Tensor
from nanhunt.operations.assignment import parted
from nanhunt.operations.cross_entropy.diagnose import diagnose
from nanhunt.operations.cross_entropy.job import Job
from nanhunt.operations.cross_entropy.options import CrossEntropyOptions
from nanhunt.operations.cross_entropy.recognise import Recognised, recognise
from nanhunt.operations.cross_entropy.roles import Chosen, Pairing, choose
from nanhunt.operations.cross_entropy.rules import OF_CERTAIN_LOGITS, RULES
from nanhunt.operations.cross_entropy.targets import read_weights
from nanhunt.operations.cross_entropy.tensors import CLASS_WEIGHTS, LOGITS, TARGETS
from nanhunt.operations.registry import OperationOptions
from nanhunt.operations.run import Failed, Outcome, Run
from nanhunt.operations.values.judge import judge_values
from nanhunt.options import one_of
from nanhunt.results.finding import Severity

NO_NOTES: Mapping[str, tuple[str, ...]] = {}


def judge(
    container: Container,
    given: Mapping[str, Tensor],
    run: Run,
    used: frozenset[str] = frozenset(),
    notes: Mapping[str, tuple[str, ...]] = NO_NOTES,
) -> Iterator[Outcome]:
    """As ``Described.judge`` says: each pairing as soon as it is known, then the values.

    ``used``: labels of tensors that were judged as another operation already; ``notes``: more to say, by label.
    Raises NanhuntError where there is nothing to compare.
    """
    chosen = _chosen(container, given, with_roles(run.options))
    chosen = replace(
        chosen,
        pairings=tuple(each for each in chosen.pairings if each.logits.label not in used),
        values=tuple(each for each in chosen.values if each.label not in used),
        notes={**chosen.notes, **notes},
    )
    if run.compares and not chosen.pairings and not used:
        raise _nothing_to_compare(*(tensor.label for tensor in chosen.values[:5]))
    for pairing in chosen.pairings:
        yield from _pairing(pairing, chosen.class_weights, run)
    if not run.compares:
        yield from judge_values(chosen.values, chosen.notes, run)


def with_roles(options: OperationOptions) -> OperationOptions:
    """Cross entropy's tensors as --role names them, which is --logits, --targets and --class-weights in other words.

    Raises NanhuntError for a role that cross entropy does not have.
    """
    said = dict(parted(text) for text in options.role)
    for name in said:
        one_of("--role", name, ("logits", "targets", "class-weights"))
    return replace(
        options,
        logits=(said["logits"],) if "logits" in said else options.logits,
        targets=said.get("targets", options.targets),
        class_weights=said.get("class-weights", options.class_weights),
    )


def _codes(run: Run, *, certain: bool) -> frozenset[str]:
    """The rules to look for: ``certain`` says whether a name, the user or labels say that these are logits.

    Who calls the fused loss need not hear of what breaks the others.
    """
    codes = run.codes("cross-entropy")
    if not certain:
        codes -= OF_CERTAIN_LOGITS
    if run.options.loss != "fused":
        return codes
    return codes - {rule.code for rule in RULES if rule.severity is Severity.WARNING}


def _chosen(container: Container, given: Mapping[str, Tensor], options: CrossEntropyOptions) -> Chosen:
    """What is what: as it is given, and in the container as ``choose`` finds it."""
    if LOGITS.name in given:
        chosen = Chosen((_told(given[LOGITS.name], container, options),))
        if options.class_weights is not None:
            weights = tensor_at(options.class_weights, CLASS_WEIGHTS, options.stored_dtype)
            chosen = replace(chosen, class_weights=weights)
    else:
        chosen = choose(container, options)
    if TARGETS.name in given:
        found = given[TARGETS.name]
        chosen = replace(
            chosen,
            pairings=tuple(
                replace(each, targets=found, source=_source(found), given=True) for each in chosen.pairings
            ),
        )
    if CLASS_WEIGHTS.name in given:
        chosen = replace(chosen, class_weights=given[CLASS_WEIGHTS.name])
    return chosen


def _told(logits: Tensor, container: Container, options: CrossEntropyOptions) -> Pairing:
    """The pairing of logits that are said to be some. Raises NanhuntError where they cannot be."""
    if logits.dtype not in FLOATING:
        raise NanhuntError(f"The logits are {logits.dtype}.", "Logits are floating-point numbers.")
    if options.targets is None:
        return Pairing(logits)
    targets = tensor_at(options.targets, TARGETS, options.stored_dtype, container)
    return Pairing(logits, targets, targets.label)


def _source(targets: Tensor) -> str:
    return "argument" if targets.file == FILE else targets.label


def _pairing(pairing: Pairing, weights: Tensor | None, run: Run) -> Iterator[Outcome]:
    """Logits, a judgement per dtype; as numbers only where no softmax is known to follow."""
    tensor = pairing.logits
    try:
        _check_shape(tensor, run.options)
        seen = recognise(pairing, run.options)
        if seen.softmax:
            codes = _codes(run, certain=pairing.named or seen.targets is not None)
            for cast in run.casts(tensor):
                job = _job(cast.of(tensor), cast.judged, seen, weights, codes)
                table = run.table(tensor, cast.name)
                every_row = run.compares or table is not None
                found = diagnose(job, run.executor, every_row=every_row, table=table, advance=run.advance)
                change = _moved(job, tensor) if cast.scaling != "none" else ""
                notes = (*filter(None, [change]), *seen.notes, *found.notes)
                roles = _roles(pairing, seen, weights)
                yield cast.told(replace(found, notes=notes, roles=roles), tensor)
        elif run.compares:
            raise _nothing_to_compare(tensor.label, *seen.notes)
        else:
            yield from judge_values((tensor,), {tensor.label: seen.notes}, run)
    except (NanhuntError, OSError, MemoryError) as error:
        yield Failed(tensor.label, error)


def _roles(pairing: Pairing, seen: Recognised, weights: Tensor | None) -> dict[str, str]:
    """Where each role's tensor was found, "file:name"."""
    targets = pairing.targets if seen.targets is not None else None
    found = {LOGITS.name: pairing.logits, TARGETS.name: targets, CLASS_WEIGHTS.name: weights}
    return {name: tensor.label for name, tensor in found.items() if tensor is not None}


def _moved(job: Job, stored: Tensor) -> str:
    from nanhunt.operations.cross_entropy.quantised import moved  # few formats are scaled

    return moved(job, stored)


def _job(tensor: Tensor, dtype: str, seen: Recognised, weights: Tensor | None, codes: frozenset[str]) -> Job:
    classes = tensor.shape[seen.options.class_axis]
    numbers = None if weights is None else read_weights(weights, classes)
    return Job(tensor, dtype, seen.targets, numbers, seen.options, codes)


def _nothing_to_compare(label: str, *more: str) -> NanhuntError:
    return NanhuntError(
        f"Nothing here looks like logits: {', '.join((label, *more))}.", "Name them with --logits NAME."
    )


def _check_shape(tensor: Tensor, options: CrossEntropyOptions) -> None:
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


def articles_batch() -> dict[str, Tensor]:
    """The articles' 3 x 3 batch: one row whose exp overflows in every format."""
    logits = np.array([[2.0, 1.0, 0.1], [1000.0, 1.0, -1000.0], [3.0, 2.0, 1.0]], dtype=np.float32)
    labels = np.array([0, 2, 1])
    file = "the articles' 3 x 3 batch (built in)"
    return {
        LOGITS.name: Tensor(file, "", "float32", logits.shape, lambda: logits),
        TARGETS.name: Tensor("the batch", "", "int64", labels.shape, lambda: labels),
    }
