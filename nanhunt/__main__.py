"""The process: ``nanhunt`` and ``python -m nanhunt``."""

from __future__ import annotations

import os
import sys

from nanhunt.errors import NanhuntError
from nanhunt.report import ExitCode


def main() -> None:
    """Runs the command line; errors of the user's become two lines on stderr and exit code 2."""
    from nanhunt.cli import app

    try:
        app()
    except NanhuntError as error:
        print(f"nanhunt: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        sys.exit(ExitCode.ERROR)
    except BrokenPipeError:
        # The reader left (`| head`): nothing more to say, and nothing to say at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.ERROR)


if __name__ == "__main__":
    main()
