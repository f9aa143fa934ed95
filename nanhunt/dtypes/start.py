"""Where torch cannot be started from: a working folder that has been deleted."""

from __future__ import annotations

import os
from pathlib import Path


def start_in_deleted_folder() -> None:
    """Imports torch from elsewhere if the working folder has been deleted, where oneMKL would end the process."""
    try:
        Path.cwd()
    except OSError:
        here = os.open(".", os.O_RDONLY)
        os.chdir("/")
        try:
            import torch  # noqa: F401 - for its start
        finally:
            os.fchdir(here)
            os.close(here)
