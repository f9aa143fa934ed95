"""The process's answer to a pipeline."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """The process's answer to a pipeline."""

    CLEAN = 0
    """Nothing at or above ``--fail-on``."""
    FINDINGS = 1
    """At least one finding at or above ``--fail-on``."""
    ERROR = 2
    """Something could not be read, or the call was wrong."""


INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""
