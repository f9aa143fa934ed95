"""The process: ``nanhunt`` and ``python -m nanhunt``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs the command line; errors of the user's become two lines on stderr and exit code 2."""
    from nanhunt import parallel
    from nanhunt.cli import process
    from nanhunt.cli.app import app

    # Started by a watched script: our own arithmetic is not the script's.
    os.environ.pop("NANHUNT_FAMILY", None)
    process.occupy_standard_streams()
    parallel.forks = sys.platform == "linux"
    sys.exit(process.run(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
