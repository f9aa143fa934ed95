"""FILE, NAME or FILE:NAME as a user writes it, and the tensor it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container, NothingToCheck
from nanhunt.load.listing import STDIN, exists
from nanhunt.load.opening import open_path
from nanhunt.load.roles import Role, is_called
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import described, did_you_mean, listed, printable


def tensors_at(
    spec: str, role: Role, stored_dtype: str | None = None, container: Container | None = None
) -> list[Tensor]:
    """The tensors that FILE, NAME or FILE:NAME means; a name in ``container`` comes first, then a file.

    NAME may be a glob. A file without a name given: its only tensor, the only one called like the role, or the
    only one of its kind. Raises NanhuntError, with a guess at what was meant, when that is none or several.
    """
    tensors = matching(container, spec) if container else []
    if tensors:
        return tensors
    file, name = next(_readings(spec), (None, None))
    if file is None:
        raise _neither_file_nor_tensor(spec, role, container)
    other = _opened(file, stored_dtype)
    if name is not None:
        tensors = matching(other, name)
        if not tensors:
            raise not_found(other, name, role.said_by)
        return tensors
    lone = _lone(other, role)
    if lone is None:
        message = f"{printable(file)} holds several tensors, and it is not clear which are the {role.name}."
        raise NanhuntError(message, f"Name one: {role.asking(f'{printable(file)}:NAME')}. {contents(other)}")
    return [lone]


def tensor_at(
    spec: str, role: Role, stored_dtype: str | None = None, container: Container | None = None
) -> Tensor:
    """The one tensor that ``spec`` means. Raises as ``tensors_at`` does, and for a glob that means several."""
    tensors = tensors_at(spec, role, stored_dtype, container)
    if len(tensors) > 1:
        names = listed(described(tensor) for tensor in tensors)
        raise NanhuntError(
            f'"{printable(spec)}" ({role.said_by}) means {len(tensors):,} tensors: {names}.',
            "Name one of them.",
        )
    return tensors[0]


def matching(container: Container, spec: str) -> list[Tensor]:
    """The tensor of that name (or FILE:NAME with this file), or else those that it is a glob for."""
    exact = inside(container, spec)
    if exact is not None:
        return [exact]
    pattern = spec.removeprefix(f"{container.file}:")
    for each in dict.fromkeys((pattern, _dotted(pattern))):
        found = [tensor for name, tensor in container.tensors.items() if each and fnmatchcase(name, each)]
        if found:
            return found
    return []


def inside(container: Container, spec: str) -> Tensor | None:
    """The tensor of that name (or FILE:NAME with this file); None when there is none.

    Raises why when it is there and cannot be read.
    """
    name = spec.removeprefix(f"{container.file}:")
    for each in dict.fromkeys((name, _dotted(name))):
        if each in container.refused:
            raise container.refused[each]
        if each and each in container.tensors:
            return container.tensors[each]
    return None


def _dotted(name: str) -> str:
    """A path inside HDF5 or zarr, /net/logits, as names are told: net.logits."""
    return name.strip("/").replace("/", ".")


def _lone(container: Container, role: Role) -> Tensor | None:
    tensors = list(container.tensors.values())
    named = [tensor for tensor in tensors if is_called(role.called, tensor.name)]
    fitting = [tensor for tensor in tensors if tensor.dtype in (role.usual or role.kinds)]
    return next((group[0] for group in (tensors, named, fitting) if len(group) == 1), None)


def _readings(spec: str) -> Iterator[tuple[str, str | None]]:
    """FILE, then FILE:NAME at every colon, where such a file exists: both may hold colons themselves."""
    if _is_file(spec):
        yield spec, None
    for colon in re.finditer(":", spec):
        if _is_file(spec[: colon.start()]):
            yield spec[: colon.start()], spec[colon.end() :]


def _is_file(file: str) -> bool:
    return file == STDIN or (file != "" and exists(file))


def _opened(file: str, stored_dtype: str | None) -> Container:
    try:
        container = open_path(file, stored_dtype)
    except NothingToCheck as error:  # of no concern in a search, but this file was named
        raise NanhuntError(error.message, error.hint) from None
    if not container.tensors:
        raise next(iter(container.refused.values()))
    return container


def not_found(container: Container, name: str, option: str) -> NanhuntError:
    """What to say about a name that ``option`` asked for and ``container`` does not hold."""
    message = f'{printable(container.file)} holds no tensor "{printable(name)}" ({option}).'
    return NanhuntError(message, did_you_mean(name, container.tensors) + contents(container))


def _neither_file_nor_tensor(spec: str, role: Role, container: Container | None) -> NanhuntError:
    if container is None:
        return NanhuntError(
            f'"{printable(spec)}" ({role.name}) is not a file.',
            did_you_mean(spec, _neighbours(spec)) + "Name a file.",
        )
    message = (
        f'"{printable(spec)}" ({role.said_by}) is neither a file nor a tensor in {printable(container.file)}.'
    )
    return NanhuntError(
        message, did_you_mean(spec, [*container.tensors, *_neighbours(spec)]) + contents(container)
    )


def _neighbours(spec: str) -> list[str]:
    folder = Path(spec.partition(":")[0]).parent
    try:
        return sorted(str(path) for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError):
        return []


def contents(container: Container) -> str:
    """The tensors in ``container`` as a sentence."""
    tensors = listed(described(tensor) for tensor in container.tensors.values())
    unnamed = list(container.tensors) == [""]
    return f"The file holds {'one tensor without a name' if unnamed else 'these'}: {tensors}."
