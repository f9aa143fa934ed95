"""Packages that only some formats need: asked for by name where they are missing, and kept from raising anything."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.source import Location
from nanhunt.load.wording import printable

SLACK = 1 << 26
"""Bytes that data may unpack to whatever they are packed in: whole chunks of zeros need no room in a file."""
RATIO = 1032
"""zlib's own bound on how much one byte can stand for."""


def required(module: str, extra: str, place: Location, what: str) -> Any:
    """The module. Raises NanhuntError that names the extra where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        hint = f"Install what reads it: pip install 'nanhunt[{extra}]'"
        package = module.partition(".")[0]
        raise NanhuntError(f"{place.name} is {what}, which needs {package}.", hint) from None


@contextmanager
def whole(place: Location, what: str) -> Iterator[None]:
    """Turns whatever a package raises over damaged bytes into one NanhuntError."""
    try:
        yield
    except NanhuntError:
        raise
    except MemoryError:  # mostly a length that was damaged
        message = f"{place.name} is {what} that asks for more memory than there is."
        raise NanhuntError(message, "Copy or write it again; if it is whole, give it more memory.") from None
    except OSError as error:
        if error.errno is not None:
            raise  # of the operating system
        raise damaged(place, what, error) from None
    except Exception as error:  # packages and their codecs raise anything
        raise damaged(place, what, error) from None


def damaged(place: Location, what: str, error: Exception) -> NanhuntError:
    """What to say of a file whose package gave up, in the first words of what it said."""
    lines = str(error).splitlines()
    why = printable(lines[0])[:120] if lines else type(error).__name__
    return NanhuntError(f"{place.name} is {what} that is damaged: {why}.", "Copy or write it again.")


def is_plausible(claimed: int, packed: int) -> bool:
    """Whether so many bytes can have been packed into so many: nobody's disk is to be filled by a few."""
    return claimed <= RATIO * packed + SLACK
