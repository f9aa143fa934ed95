"""The exceptions that reach the user: what happened, and the way out or what was known."""

from __future__ import annotations


class NanhuntError(Exception):
    """Something the user can mend.

    ``message`` says what they did and names the file or option; ``hint`` says what to do now.
    Neither holds a traceback or terminal escapes. The command line prints both and exits with 2; Python and notebooks
    show both under the traceback.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(hint)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; its text says what was known by then of the tensor that was being judged."""
