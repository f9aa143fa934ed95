"""What a script that has raised was working on: the tape is examined before anything is said about the run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import FrameType

import torch

from .numbers import checkable, finite
from .second_look import CannotRepeat, repeat
from .site import foreign
from .tape import Slot, Tape, slots_in

_ABOUT_NUMBERS = (ValueError, ArithmeticError, AssertionError, RuntimeError, IndexError)
_ABOUT_ELSE = (NotImplementedError, RecursionError, torch.OutOfMemoryError, UnicodeError)
_MENTIONS = re.compile(r"\b(nans?|infs?|infinit\w+|(non-?|in|not )?finite|not a number)\b", re.IGNORECASE)


def may_be_about_numbers(error: BaseException) -> bool:
    """Whether a NaN may have made the script raise this: a missing file or key is no news of numbers."""
    text = str(error)[:2000]
    return _MENTIONS.search(text) is not None or (
        isinstance(error, _ABOUT_NUMBERS) and not isinstance(error, _ABOUT_ELSE)
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and those it was raised from or after."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def innermost(error: BaseException) -> FrameType | None:
    """The frame of the user's that raised, with its variables."""
    frame, trace = None, error.__traceback__
    while trace is not None:
        if not foreign[trace.tb_frame.f_code.co_filename]:
            frame = trace.tb_frame
        trace = trace.tb_next
    return frame


def bad_results(tape: Tape) -> list[Slot]:
    """The last result on the tape that holds NaN; the step is repeated where results are no longer in memory.

    Infinities do not count: a mask is one.
    """
    made = [slot for entry in tape.entries for slot in slots_in(entry.out)]
    alive = [slot for slot in made if slot.tensor is not None and holds_nan(slot.tensor)]
    if alive:
        return alive[-1:]
    try:
        look = repeat(tape, [(slot, None) for slot in made], backward=False)
    except CannotRepeat:
        return []
    return [slot for slot in made if slot in look.values and holds_nan(look.values[slot])][-1:]


def holds_nan(tensor: torch.Tensor) -> bool:
    """Whether there is a NaN in it."""
    return checkable(tensor) and not finite(tensor) and bool(tensor.detach().isnan().any())
