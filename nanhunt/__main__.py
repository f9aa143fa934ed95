"""The process: ``nanhunt`` and ``python -m nanhunt``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.results.report import ExitCode


def main() -> None:
    """Runs the command line; errors of the user's become two lines on stderr and exit code 2."""
    from nanhunt import parallel
    from nanhunt.cli.app import app

    os.environ.pop(
        "NANHUNT_FAMILY", None
    )  # started by a watched script: our own arithmetic is not the script's
    parallel.forks = sys.platform == "linux"
    if sys.stdout is None:  # closed by whoever started this: reports may still go to files
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    try:
        app()
    except NanhuntError as error:
        print(f"nanhunt: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(ExitCode.ERROR)


if __name__ == "__main__":
    main()
