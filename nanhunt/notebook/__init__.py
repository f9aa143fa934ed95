"""nanhunt in IPython and Jupyter: ``%load_ext nanhunt``, then ``%%nanhunt`` on top of a cell that trains."""

from __future__ import annotations

import shlex
from typing import Any

from nanhunt.errors import NanhuntError


def load_ipython_extension(shell: Any) -> None:
    """Called by ``%load_ext nanhunt`` with the running InteractiveShell."""

    def watched(line: str, cell: str) -> None:
        """Watch this cell: ``%%nanhunt [--every-op] [--continue]``."""
        from nanhunt.watch import watch

        with watch(**settings(line)):
            shell.run_cell(cell)

    shell.register_magic_function(watched, "cell", "nanhunt")


def settings(line: str) -> dict[str, Any]:
    """What the line of the magic says, as keywords of ``nanhunt.watch``. Raises NanhuntError for anything else."""
    known = {"--every-op": "every_op", "--continue": "keep_going"}
    found = {}
    for word in shlex.split(line):
        if word not in known:
            raise NanhuntError(f"%%nanhunt {word} is not known.", f"It takes {', '.join(known)}.")
        found[known[word]] = True
    return found
