"""How a command line ended, and what it is started with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BASE = {
    name: value
    for name, value in os.environ.items()
    if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "GITHUB_STEP_SUMMARY"}
}


@dataclass(frozen=True)
class Ended:
    """A process that came to its end."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Standard output as strictly valid JSON."""
        body = json.loads(self.out, parse_constant=_refuse)
        assert isinstance(body, dict)
        return body


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


Run = Callable[..., Ended]
