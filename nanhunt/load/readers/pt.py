""".pt, .pth, .bin, .ckpt: what torch.save wrote, as a zip (memory-mapped) or as a pickle of before 1.6.

The only module here that imports torch, and only while a checkpoint is opened. Nothing in one is executed:
weights_only=True everywhere, and refused classes are found by reading the pickle, not by running it.
"""

from __future__ import annotations

import io
import itertools
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import numpy.typing as npt

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, RefusedTensor
from nanhunt.load.readers import zipped
from nanhunt.load.source import Source
from nanhunt.load.tensor import BITS, FLOATING, INTEGER, Tensor
from nanhunt.load.wording import listed, printable

if TYPE_CHECKING:
    import torch

LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a pickle of torch.save's magic number ends, in every binary pickle protocol."""
MOST_OBJECTS = 2_000_000
"""Tensors and containers visited: a few lists that hold each other spell out more than any file."""
DEEPEST = 100
"""Levels of containers."""

_PICKLE = re.compile(r"([^/]+/)?data\.pkl")
_STORAGE = re.compile(r"([^/]+/)?data/[^/]+")
_LEGACY_PICKLES = 4
"""Magic number, protocol version, system and, last, the object."""


def is_pt(names: list[str]) -> bool:
    """Whether a zip with these entries was written by torch.save (or torch.jit.save)."""
    return any(_PICKLE.fullmatch(name) for name in names)


def open_pt(source: Source, entries: Sequence[zipfile.ZipInfo]) -> Container:
    """The tensors of a zip checkpoint under dotted names, memory-mapped.

    Raises NanhuntError for a damaged file and for one that needs classes beyond tensors.
    """
    names = [entry.filename for entry in entries]
    if any(re.fullmatch(r"([^/]+/)?constants\.pkl", name) for name in names):
        hint = "Save its tensors: torch.save(torch.jit.load(PATH).state_dict(), 'weights.pt')."
        raise NanhuntError(
            f"{source.name} is a TorchScript program, and nanhunt runs nothing in a file.", hint
        )
    storages = [entry for entry in entries if _STORAGE.fullmatch(entry.filename)]
    if not storages:
        # A scheduler's state, training arguments: not worth importing torch for, or refusing a class in.
        return Container(source.file, {}, "pt")
    # Mapping a compressed entry would read its packed bytes as values.
    plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in storages)
    return _container(source, _load(source, _pickle_of(source, entries), map_it=plain), "pt")


def open_legacy(source: Source) -> Container:
    """The tensors of a checkpoint written before torch 1.6, which torch can only read into memory.

    Raises NanhuntError as ``open_pt`` does.
    """
    with source.open() as stream:
        return _container(source, _load(source, stream, map_it=False), "pt-legacy")


def _pickle_of(source: Source, entries: Sequence[zipfile.ZipInfo]) -> IO[bytes]:
    entry = next(entry for entry in entries if _PICKLE.fullmatch(entry.filename))
    if problem := zipped.problem(entry):
        raise NanhuntError(
            f"{source.name}:{printable(entry.filename)} {problem[0]}.", "Save it with torch.save."
        )
    with zipped.opened(source, entry) as stream:
        return io.BytesIO(stream.read())


def _load(source: Source, pickled: IO[bytes], *, map_it: bool) -> object:
    """What torch.load makes of the file. ``pickled`` is where to look for the classes it refuses."""
    import torch

    path = source.path
    # torch goes by the suffix here, and would read a checkpoint as what it is not.
    map_it = map_it and path is not None and not path.endswith(".safetensors")
    with source.open() as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about storages and protocols, to the author of the file
        try:
            return torch.load(
                path if map_it and path else stream, map_location="cpu", weights_only=True, mmap=map_it
            )
        except Exception:  # a damaged pickle can make torch raise anything
            raise _failure(source, pickled) from None


def _failure(source: Source, pickled: IO[bytes]) -> NanhuntError:
    """Why torch.load gave up; its own texts hold terminal escapes and, for an empty file, nothing."""
    if refused := _refused_classes(pickled):
        return _needs_classes(source, refused)
    pickled.seek(0)
    start = pickled.read(2)
    if start[:1] == b"\x80" and start[1] > 2:
        message = (
            f"{source.name} was saved with pickle protocol {start[1]}, and torch reads protocol 2 safely."
        )
        return NanhuntError(message, "Save it again, without pickle_protocol.")
    return _damaged(source)


def _refused_classes(pickled: IO[bytes]) -> list[str]:
    """Classes and functions the pickles name and torch does not allow, sorted. Only reads opcodes."""
    import torch

    named = sorted(set(_globals(pickled)))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        # A checkpoint that only names them: torch tells the unsafe ones, whatever the original was.
        lines = "".join(f"c{module}\n{name}\n" for module, name in named)
        writer.writestr("archive/data.pkl", b"\x80\x02" + lines.encode() + b".")
        writer.writestr("archive/version", b"3\n")
    archive.seek(0)
    return sorted(printable(name) for name in torch.serialization.get_unsafe_globals_in_checkpoint(archive))


def _globals(pickled: IO[bytes]) -> Iterator[tuple[str, str]]:
    """(module, name) of every class or function that up to four pickles in a row refer to."""
    pickled.seek(0)
    for _ in range(_LEGACY_PICKLES):
        recent: list[str] = []
        memo: dict[int, str] = {}
        # Damaged or cut: what was named so far is all there is to know.
        with suppress(Exception):
            for opcode, argument, _position in pickletools.genops(pickled):
                if opcode.name in ("GLOBAL", "INST") and isinstance(argument, str):
                    module, _, name = argument.partition(" ")
                    yield printable(module), printable(name)
                elif opcode.name == "STACK_GLOBAL" and len(recent) >= 2:
                    yield recent[-2], recent[-1]
                elif "UNICODE" in opcode.name:
                    recent.append(printable(str(argument)))
                elif opcode.name == "MEMOIZE":
                    memo[len(memo)] = recent[-1] if recent else ""
                elif opcode.name in ("BINGET", "LONG_BINGET") and argument in memo:
                    recent.append(memo[argument])


def _needs_classes(source: Source, refused: list[str]) -> NanhuntError:
    message = f"{source.name} needs more than tensors, and nothing in it was run: {listed(refused)}."
    is_module = any(name.startswith("torch.nn.") for name in refused)
    tensors = ".state_dict()" if is_module else "['state_dict']"
    hint = (
        "If you trust it, save its tensors alone:"
        f" torch.save(torch.load(PATH, weights_only=False){tensors}, 'weights.pt')."
        " Or allow the classes with torch.serialization.add_safe_globals and call nanhunt.check."
    )
    return NanhuntError(message, hint)


def _damaged(source: Source) -> NanhuntError:
    message = f"{source.name} is a torch checkpoint that is truncated or damaged: torch.load gives up on it."
    return NanhuntError(message, "Copy, download or save it again.")


def _container(source: Source, content: object, form: str) -> Container:
    tensors: dict[str, Tensor] = {}
    refused: dict[str, RefusedTensor] = {}
    for path, value in _walk(source, content):
        name = _unused(".".join(path), tensors, refused)
        try:
            tensors[name] = _tensor(source, name, value)
        except RefusedTensor as error:
            refused[name] = error
    return Container(source.file, tensors, form, refused)


def _walk(source: Source, content: object) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    """Every tensor in nested dicts, lists and tuples with the keys that lead to it, in their order."""
    import torch

    # ``above`` ends loops, yet a container that is saved under two names is walked under both.
    waiting: list[tuple[tuple[str, ...], object, frozenset[int]]] = [((), content, frozenset())]
    visited = 0
    while waiting:
        path, value, above = waiting.pop()
        visited += 1
        if visited > MOST_OBJECTS or len(path) > DEEPEST:
            hint = "Save its tensors alone: torch.save(model.state_dict(), 'weights.pt')."
            raise NanhuntError(f"{source.name} nests its contents absurdly, {len(path):,} levels deep.", hint)
        if isinstance(value, torch.Tensor):
            yield path, value
        elif id(value) not in above:
            inside = above | {id(value)}
            kinds = (torch.Tensor, Mapping, list, tuple)
            items = [(str(key), item) for key, item in _items(value) if isinstance(item, kinds)]
            waiting.extend(((*path, key), item, inside) for key, item in reversed(items))


def _items(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def _unused(name: str, *taken: Mapping[str, object]) -> str:
    """``name``, numbered where {"a.b": ..., "a": {"b": ...}} spells it twice."""
    spellings = itertools.chain([name], (f"{name}#{number}" for number in itertools.count(2)))
    return next(spelling for spelling in spellings if not any(spelling in names for names in taken))


def _tensor(source: Source, name: str, value: torch.Tensor) -> Tensor:
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    label = f"{source.name}:{printable(name)}" if name else source.name
    if problem := _problem(value, dtype):
        raise RefusedTensor(f"{label} {problem[0]}.", problem[1])

    def read() -> npt.NDArray[Any]:
        values = value.detach()
        if dtype in BITS:
            return values.view(getattr(torch, BITS[dtype])).numpy()
        return values.resolve_conj().resolve_neg().numpy()

    return Tensor(source.file, name, dtype, tuple(value.shape), read)


def _problem(value: torch.Tensor, dtype: str) -> tuple[str, str] | None:
    """What a tensor is that has no plain array of values, and the way to one."""
    if value.is_meta:
        return (
            "is a meta tensor: it has a shape and no values",
            "Save the model after its weights are loaded.",
        )
    if value.is_quantized:
        return f"is quantized ({dtype})", "Save tensor.dequantize() instead."
    if value.is_nested or str(value.layout) != "torch.strided":
        return f"is not dense ({str(value.layout).removeprefix('torch.')})", "Save tensor.to_dense() instead."
    if dtype not in (*FLOATING, *INTEGER, "complex64", "complex128"):
        return f"is {dtype}, which nanhunt cannot judge", "Save tensor.to(torch.float32) instead."
    return None
