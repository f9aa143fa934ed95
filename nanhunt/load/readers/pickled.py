"""A pickle read as data: its classes and functions are names, never looked up, imported or called.

Python's own unpickler imports what a pickle names and calls it, which is running the file's code. This one keeps
the calls as they are written (``Instance``), so that the tensors, arrays and numbers in an object can be found
whatever its class is. All opcodes of protocols 0 to 5 (docs.python.org, pickletools) but out-of-band buffers.
"""

from __future__ import annotations

import codecs
import mmap
import struct
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEEPEST_KEY = 20
"""Levels of tuples in a dict's key: hashing them recurses in C without a guard."""


class BadPickle(Exception):  # noqa: N818 - the file's fault, turned into a NanhuntError by who knows its name
    """The bytes are no whole pickle."""


@dataclass(frozen=True)
class Global:
    """The name of a class or function; nothing behind it."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """E.g. "torch._utils._rebuild_tensor_v2"."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Instance:
    """What calling ``made_by`` with ``args`` would have made, and what was put into it afterwards."""

    made_by: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    """What __setstate__ would have got: mostly the attributes."""
    items: list[Any] = field(default_factory=list)
    """What would have been appended or added."""
    pairs: dict[Hashable, Any] = field(default_factory=dict)
    """What would have been set under keys."""


@dataclass(eq=False)
class External:
    """Something that lies outside of the pickle; ``identity`` says where."""

    identity: Any


_MARK = object()
_SIMPLE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: {},
    "builtins.complex": complex,
    "torch.Size": lambda sizes: sizes if isinstance(sizes, tuple) else None,
}
"""Calls that give plain data. None of them copies what the pickle may hand to it a million times."""


@dataclass(frozen=True)
class Loaded:
    """One pickle's content."""

    object: Any
    """Dicts, lists, tuples, sets, text, bytes and numbers are Python's own; the rest is Instance, Global, External."""
    externals: list[External]
    """In the order of the pickle."""
    end: int
    """Position behind the pickle."""
    named: tuple[str, ...] = ()
    """The classes and functions that it names, each once: "argparse.Namespace"."""


_NOTHING: Mapping[str, Any] = {}


def load(content: bytes | mmap.mmap, start: int = 0, outside: Mapping[str, Any] = _NOTHING) -> Loaded:
    """The object in the pickle at ``start``.

    ``outside``: objects outside of it that are known already, by their identity as text.
    Raises BadPickle for anything that is not a whole pickle; executes nothing.
    """
    machine = _Machine(content, start, outside)
    try:
        found = machine.run()
        return Loaded(found, machine.externals, machine.position, tuple(machine.named))
    except (
        IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, RecursionError,
        UnicodeError, LookupError, AttributeError,
    ) as error:  # fmt: skip
        raise BadPickle(f"{type(error).__name__} at byte {machine.position}") from None


_BYTES = ("_codecs.encode", "builtins.bytes", "builtins.bytearray")


def as_bytes(value: Any) -> bytes | None:
    """The bytes in ``value``: plain, or as protocols before 3 spell them, _codecs.encode(text, "latin1")."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Instance) and value.made_by.path in _BYTES:
        content, encoding = (*value.args, "latin1", "latin1")[:2] if value.args else (b"", "latin1")
        if isinstance(content, bytes):
            return content
        if isinstance(content, str) and encoding in ("latin1", "latin-1"):
            return content.encode("latin-1", "replace")
    return None


_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "__codecs": "_codecs"}
"""Modules as Python 2, whose protocol torch.save uses, spells them."""


class _Machine:
    """The stack machine of pickle."""

    def __init__(self, content: bytes | mmap.mmap, start: int, outside: Mapping[str, Any]) -> None:
        self.content = content
        self.outside = outside
        self.position = start
        self.externals: list[External] = []
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.named: dict[str, None] = {}

    def run(self) -> Any:
        content, handlers = self.content, _HANDLERS
        while True:
            code = content[self.position]
            self.position += 1
            if code == _STOP:
                return self.stack.pop()
            handlers[code](self)

    def take(self, count: int) -> bytes:
        """The next bytes. Raises BadPickle where there are fewer."""
        end = self.position + count
        if not self.position <= end <= len(self.content):
            raise BadPickle("it is cut off")
        taken = self.content[self.position : end]
        self.position = end
        return taken

    def number(self, form: struct.Struct) -> Any:
        """The next number in a binary form."""
        (value,) = form.unpack_from(self.content, self.position)
        self.position += form.size
        return value

    def line(self) -> bytes:
        """Up to the next line end, which is dropped. Raises BadPickle where there is none."""
        end = self.content.find(b"\n", self.position)
        if end < 0:
            raise BadPickle("it is cut off")
        taken = self.content[self.position : end]
        self.position = end + 1
        return taken

    def since_mark(self) -> list[Any]:
        """What was pushed since the last mark, which is taken away. Raises BadPickle where no mark is left."""
        stack = self.stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                taken = stack[index + 1 :]
                del stack[index:]
                return taken
        raise BadPickle("it has no mark")

    def remember(self, index: int) -> None:
        """Puts the top of the stack under a number."""
        self.memo[index] = self.stack[-1]

    def external(self, identity: Any) -> Any:
        """An object outside, noted unless it is known; torch before 1.6 refers to classes with their source so, too."""
        match identity:
            case ("module", Global() as named, *_):
                return named
        if isinstance(identity, int | str) and str(identity) in self.outside:
            return self.outside[str(identity)]
        self.externals.append(External(identity))
        return self.externals[-1]


def _call(made_by: Any, args: Any) -> Any:
    """The result of a call, as data."""
    if not isinstance(made_by, Global) or not isinstance(args, tuple):
        raise BadPickle("it calls what is no class")
    simple = _SIMPLE.get(made_by.path)
    if simple is None or (not args) != (made_by.name == "OrderedDict"):
        return Instance(made_by, args)
    return simple(*args)


def _reduce(machine: _Machine) -> None:
    args = machine.stack.pop()
    machine.stack[-1] = _call(machine.stack[-1], args)


def _new_with_keywords(machine: _Machine) -> None:
    keywords = machine.stack.pop()
    _reduce(machine)
    if isinstance(made := machine.stack[-1], Instance):
        made.state = keywords or None


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    if isinstance(made := machine.stack[-1], Instance):
        made.state = state  # attributes of plain containers (a state_dict's _metadata) hold no tensors


def _object(machine: _Machine) -> None:
    made_by, *args = machine.since_mark()
    machine.stack.append(_call(made_by, tuple(args)))


def _instance(machine: _Machine) -> None:
    named = _named(machine, machine.line().decode(), machine.line().decode())
    machine.stack.append(_call(named, tuple(machine.since_mark())))


def _named(machine: _Machine, module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise BadPickle("a class without a name")
    found = Global(_RENAMED.get(module, module), name)
    machine.named[found.path] = None
    return found


def _stack_global(machine: _Machine) -> None:
    name = machine.stack.pop()
    machine.stack[-1] = _named(machine, machine.stack[-1], name)


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, set):
        target.update(_key(item) for item in items)
    else:
        into = target.items if isinstance(target, Instance) else target
        if not isinstance(into, list):
            raise BadPickle("it appends to what is no list")
        into.extend(items)


def _set_pairs(target: Any, items: list[Any]) -> None:
    into = target.pairs if isinstance(target, Instance) else target
    if not isinstance(into, dict):
        raise BadPickle("it sets items in what is no dict")
    into.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))


def _key(key: Any) -> Hashable:
    """A dict's key that is safe to hash."""
    level = [key]
    for _ in range(DEEPEST_KEY):
        level = [item for each in level if isinstance(each, tuple) for item in each]
        if not level:
            return key  # type: ignore[no-any-return]
    raise BadPickle("its keys nest absurdly")


def _append(machine: _Machine) -> None:
    item = machine.stack.pop()
    _extend(machine.stack[-1], [item])


def _append_all(machine: _Machine) -> None:
    items = machine.since_mark()
    _extend(machine.stack[-1], items)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _set_pairs(machine.stack[-1], [key, value])


def _set_items(machine: _Machine) -> None:
    items = machine.since_mark()
    _set_pairs(machine.stack[-1], items)


def _dict(machine: _Machine) -> None:
    items = machine.since_mark()
    made: dict[Any, Any] = {}
    _set_pairs(made, items)
    machine.stack.append(made)


def _frozen_set(machine: _Machine) -> None:
    machine.stack.append(frozenset(_key(item) for item in machine.since_mark()))


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def handler(machine: _Machine) -> None:
        if len(machine.stack) < count:
            raise BadPickle("its stack is empty")
        machine.stack[len(machine.stack) - count :] = [tuple(machine.stack[len(machine.stack) - count :])]

    return handler


def _pop_mark(machine: _Machine) -> None:
    machine.since_mark()


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _duplicate(machine: _Machine) -> None:
    machine.stack.append(machine.stack[-1])


def _external(machine: _Machine) -> None:
    machine.stack[-1] = machine.external(machine.stack[-1])


def _memoize(machine: _Machine) -> None:
    machine.remember(len(machine.memo))


def _ignored(size: int) -> Callable[[_Machine], None]:
    def handler(machine: _Machine) -> None:
        machine.take(size)

    return handler


def _pushes(value: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(value(machine))


def _sized(form: struct.Struct, make: Callable[[bytes], Any]) -> Callable[[_Machine], None]:
    """Pushes what ``make`` makes of bytes that come after their number."""
    return lambda machine: machine.stack.append(make(machine.take(machine.number(form))))


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


def _latin(content: bytes) -> str:
    return content.decode("latin-1")


def _whole(content: bytes) -> int:
    return int.from_bytes(content, "little", signed=True)


def _quoted(content: bytes) -> str:
    return _latin(codecs.escape_decode(content.strip()[1:-1])[0])


def _decimal(content: bytes) -> int | bool:
    # Protocol 0 has booleans as numbers with a leading zero.
    return content == b"01" if content in (b"00", b"01") else int(content.rstrip(b"L"))


_U1, _U2, _U4, _U8 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")
_STOP = ord(".")
_BY_CODE: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _ignored(1), b"\x95": _ignored(8),  # protocol, frame
    b"(": _pushes(lambda machine: _MARK), b"0": _pop, b"1": _pop_mark, b"2": _duplicate,
    b"N": _pushes(lambda machine: None), b"\x88": _pushes(lambda machine: True),
    b"\x89": _pushes(lambda machine: False),
    b"I": _pushes(lambda machine: _decimal(machine.line())), b"L": _pushes(lambda machine: _decimal(machine.line())),
    b"F": _pushes(lambda machine: float(machine.line())), b"G": _pushes(lambda machine: machine.number(_F8)),
    b"J": _pushes(lambda machine: machine.number(_I4)), b"K": _pushes(lambda machine: machine.number(_U1)),
    b"M": _pushes(lambda machine: machine.number(_U2)), b"\x8a": _sized(_U1, _whole), b"\x8b": _sized(_I4, _whole),
    b"S": _pushes(lambda machine: _quoted(machine.line())), b"T": _sized(_I4, _latin), b"U": _sized(_U1, _latin),
    b"V": _pushes(lambda machine: machine.line().decode("raw-unicode-escape")),
    b"X": _sized(_U4, _text), b"\x8c": _sized(_U1, _text), b"\x8d": _sized(_U8, _text),
    b"B": _sized(_U4, bytes), b"C": _sized(_U1, bytes), b"\x8e": _sized(_U8, bytes), b"\x96": _sized(_U8, bytes),
    b"]": _pushes(lambda machine: []), b"}": _pushes(lambda machine: {}), b")": _pushes(lambda machine: ()),
    b"\x8f": _pushes(lambda machine: set()), b"l": _pushes(_Machine.since_mark), b"d": _dict,
    b"t": _pushes(lambda machine: tuple(machine.since_mark())), b"\x91": _frozen_set,
    b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"a": _append, b"e": _append_all, b"\x90": _append_all, b"s": _set_item, b"u": _set_items,
    b"p": lambda machine: machine.remember(int(machine.line())),
    b"q": lambda machine: machine.remember(machine.number(_U1)),
    b"r": lambda machine: machine.remember(machine.number(_U4)), b"\x94": _memoize,
    b"g": _pushes(lambda machine: machine.memo[int(machine.line())]),
    b"h": _pushes(lambda machine: machine.memo[machine.number(_U1)]),
    b"j": _pushes(lambda machine: machine.memo[machine.number(_U4)]),
    b"c": _pushes(lambda machine: _named(machine, machine.line().decode(), machine.line().decode())),
    b"\x93": _stack_global, b"i": _instance, b"o": _object, b"R": _reduce, b"\x81": _reduce,
    b"\x92": _new_with_keywords, b"b": _build,
    b"P": _pushes(lambda machine: machine.external(machine.line().decode())), b"Q": _external,
}  # fmt: skip
_HANDLERS = {code[0]: handler for code, handler in _BY_CODE.items()}
