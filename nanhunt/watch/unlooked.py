"""What a run did that nobody looked at: counted, so that "all clear" claims no more than is so."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from .site import Line, resolve

_LAYOUT = struct.Struct("<4q")
MAX_SHOWN = 4
"""Lines that read a value which is not finite; JSON has them all."""


@dataclass
class Unlooked:
    """Counts of calls outside of any check, and the lines where the script read NaN or infinity itself."""

    every_op: bool = False
    """Whether the observer looks inside scripted and compiled modules and at calls without gradients."""
    no_grad: int = 0
    """Calls of outermost modules without gradients: no backward tells whether they went bad."""
    transforms: int = 0
    """Derivatives worked out inside torch.func.grad or jvp: no loss is in sight, and they have no numbers there yet."""
    scripted: int = 0
    """Scripted or traced modules that ran: their results and gradients are looked at, their inside is not."""
    functions: int = 0
    """Scripted or traced functions that ran."""
    values: dict[Line, str] = field(default_factory=dict)
    """Line -> what was read there. Legal (a best metric so far starts at infinity), and worth a note."""
    _scripted: set[int] = field(default_factory=set)

    def script_ran(self, module: object, *, function: bool = False) -> None:
        """A scripted module or function has been called; each is counted once."""
        if not self.every_op:
            new = id(module) not in self._scripted
            self._scripted.add(id(module))
            self.scripted += new and not function
            self.functions += new and function

    def read(self, value: float, line: Line) -> None:
        """The script has read this number, which is not finite."""
        if line not in self.values:
            site = resolve(*line)
            self.values[line] = f"{value:g} was read at {site.short}" + (site.source and f" | {site.source}")

    def began_bad(self, count: int, line: Line) -> None:
        """Parameters held so many values that are not finite before their first update, here."""
        site = resolve(*line)
        self.values[line] = (
            f"{_number(count, 'value')} of the parameters not finite before the first update at {site.short}"
        )

    def forget(self) -> None:
        """In a forked child: what was counted before is the parent's."""
        self.no_grad = self.transforms = self.scripted = self.functions = 0
        self.values.clear()
        self._scripted.clear()

    def packed(self) -> bytes:
        """The counts as bytes, always equally many."""
        return _LAYOUT.pack(self.no_grad, self.transforms, self.scripted, self.functions)

    def add(self, packed: bytes) -> None:
        """Add the counts of another process."""
        no_grad, transforms, scripted, functions = _LAYOUT.unpack(packed)
        self.no_grad += no_grad
        self.transforms += transforms
        self.scripted += scripted
        self.functions += functions

    def __bool__(self) -> bool:
        """Whether there is anything to be said."""
        return bool(self.no_grad or self.transforms or self.scripted or self.functions or self.values)

    def sentence(self) -> str:
        """``; not looked at: 120 module calls under torch.no_grad ...``, or nothing."""
        counted = ", ".join(self._counted())
        return f"; not looked at: {counted}" if counted else ""

    def _counted(self) -> Iterator[str]:
        if self.no_grad:
            yield f"{_number(self.no_grad, 'module call')} under torch.no_grad (--every-op looks at them)"
        if self.transforms:
            yield _number(self.transforms, "call") + " of torch.func.grad or jvp"
        if self.scripted:
            yield _number(self.scripted, "scripted module")
        if self.functions:
            yield _number(self.functions, "scripted function")

    def notes(self) -> str:
        """A line for each of the first values, each ending in a newline."""
        lines = list(self.values.values())
        shown = [f"  note: {line}" for line in lines[:MAX_SHOWN]]
        if len(lines) > MAX_SHOWN:
            shown.append(f"  and {_number(len(lines) - MAX_SHOWN, 'more line')} that read NaN or infinity")
        return "".join(f"{line}\n" for line in shown)


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
