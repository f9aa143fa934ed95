"""Runs at the start of each Python that a watched script starts: its folder leads PYTHONPATH there.

It gives way to the sitecustomize the user has, and nothing that goes wrong here reaches the process.
"""

import os
import sys

_HERE = os.path.realpath(os.path.dirname(__file__))  # noqa: PTH120 - whichever Python runs this, at once
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != _HERE]
_self = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # type: ignore[import-not-found] # noqa: F401 - the user's own
except ImportError as error:
    if error.name != "sitecustomize":
        raise
    sys.modules["sitecustomize"] = _self  # the import system asks for it once more
try:
    from nanhunt.watch.family import follow

    follow()
except Exception:
    pass
