"""Proves the fix of an explained fault on the user's step, and saves what it takes to look closer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import capture, ranks, replay, saved_step
from .incident import Incident, Phase
from .investigation import Solved
from .repair.mend import Failing, mend
from .repair.sample import without_bad_samples, without_bad_weights
from .second_look import CannotRepeat


@dataclass(frozen=True)
class Filing:
    """Where captures go, and what the session knows of the steps before."""

    folder: Path
    started: float
    """Seconds since the epoch."""
    blown_up: Callable[[], str]
    """The sentence about a learning rate that blew up, or ""."""
    indices: Callable[[], list[int] | None]
    """Which samples of the data set the batch held, where that is known."""

    def file(self, incident: Incident, solved: Solved) -> Incident:
        """With fix, patch and capture; what cannot be had becomes a note, and never an exception."""
        notes = incident.notes
        try:
            incident = replace(incident, remedies=capture.prove(solved.exhibits, incident))
        except Exception as error:
            # No proof is no reason to lose the report, or to break the script.
            notes += (f"no fix could be proven: {type(error).__name__}: {error}",)
        try:
            incident = self._mended(incident, solved.failing)
        except Exception as error:
            notes += (f"no patch could be proven: {type(error).__name__}: {error}",)
        try:
            incident = _step_saved(self.folder, incident, solved)
            incident = capture.write(self.folder, solved.exhibits, incident)
        except OSError as error:
            notes += (f"no capture was written: {error.strerror}: {self.folder}",)
        return replace(incident, notes=notes + ranks.notes(self.folder, self.started, incident))

    def _mended(self, incident: Incident, failing: Failing | None) -> Incident:
        """With the patch; or, where code is not the cause, with what shows that."""
        given = any(culprit.phase is Phase.INPUT for culprit in incident.culprits)
        if given and failing is not None:
            return replace(incident, not_code=without_bad_samples(failing, self.indices()))
        blown_up = self.blown_up()
        if blown_up:
            return replace(incident, not_code=blown_up)
        if failing is None:
            return incident
        if any(culprit.phase is Phase.PARAMETER for culprit in incident.culprits):
            return replace(incident, not_code=without_bad_weights(failing))
        mended = mend(failing)
        return replace(incident, patch=mended.patch, tried=tuple(mended.tried))


def _step_saved(folder: Path, incident: Incident, solved: Solved) -> Incident:
    """With the file from which the step can be repeated, or why there is none. Raises OSError."""
    failing, path = solved.failing, folder / capture.file_name(incident, "-replay")
    if failing is None:
        return replace(incident, not_saved="it could not be repeated")
    try:
        saved_step.save(path, failing.tape, failing.roots, failing.names, incident, solved.gradients)
        if not replay.repeats(path, incident):
            path.unlink()
            return replace(incident, not_saved="repeated from the file alone it went another way")
    except OSError:
        raise
    except Exception as error:
        known = isinstance(error, CannotRepeat | saved_step.CannotSave)
        return replace(incident, not_saved=str(error) if known else f"{type(error).__name__}: {error}")
    return replace(incident, replay=str(path))
