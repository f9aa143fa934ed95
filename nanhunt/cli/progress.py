"""A progress bar on stderr: only on a terminal, only when the work takes longer than a second.

judging, 12 of 300 files ━━━━━━━━━━━ 1.2/8.0 GB 2.1 GB/s 0:00:03
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PATIENCE = 1.0
"""Seconds before the bar appears."""


class Progress:
    """Told of bytes as they are done; shows them, with their rate."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._began = time.monotonic()
        self.done = 0
        """Bytes so far."""
        self._total: int | None = None
        self._files = 0
        self._finished = 0
        self._fetched = 0
        self._bar: RichProgress | None = None
        self._lock = threading.Lock()

    def expect(self, total: int | None, files: int = 1) -> None:
        """So many bytes are to come: those of the files, which unpack to more where they are compressed."""
        self._total, self._files = total, files

    def finished(self, files: int) -> None:
        """So many files are judged."""
        self._finished = files

    def __enter__(self) -> Progress:
        """Nothing is shown yet."""
        if self._wanted:
            from nanhunt.load.remote import (
                arrived,  # threads, and more that a check of files in a pipe does not need
            )

            arrived.append(self.fetched)
        return self

    def advance(self, size: int) -> None:
        """``size`` more bytes are done."""
        self.done += size
        self._show()

    def fetched(self, size: int) -> None:
        """``size`` more bytes have come from far away, from whatever thread: they are judged faster than they come."""
        with self._lock:
            self._fetched += size
        self._show()

    def _show(self) -> None:
        with self._lock:
            if not self._wanted or time.monotonic() - self._began < PATIENCE:
                return
            done = max(self.done, self._fetched)
            known: dict[str, Any] = {
                "total": None if self._total is None else max(self._total, done),
                "completed": done,
                "description": self._description,
                "rate": done / max(time.monotonic() - self._began, 1e-3),
            }
            if self._bar is None:
                self._bar = _bar()
                self._bar.add_task(**known)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], **known)

    @property
    def _description(self) -> str:
        if self._files < 2:
            return "judging"
        return f"judging, {self._finished:,} of {self._files:,} files"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The bar disappears."""
        if self._wanted:
            from nanhunt.load.remote import arrived

            arrived.remove(self.fetched)
        with self._lock:
            self._wanted = False  # what is still under way comes to nobody
            if self._bar is not None:
                self._bar.stop()


def _bar() -> RichProgress:
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Bytes a second since the beginning; rich's own knows none before the second look."""

        def render(self, task: Task) -> Text:
            return Text(f"{decimal(int(task.fields['rate']))}/s", "progress.data.speed")

    return Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=None), DownloadColumn(), Rate(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
