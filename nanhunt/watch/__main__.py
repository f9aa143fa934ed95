"""``python -m nanhunt.watch SCRIPT``: ``nanhunt run`` without the rest of the command line."""

from __future__ import annotations

import sys

import typer

from nanhunt.errors import NanhuntError

from .command import register


def main() -> None:
    """Run the one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    register(app)
    try:
        app()
    except NanhuntError as error:
        print(f"nanhunt: {error.message}\n{error.hint}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
