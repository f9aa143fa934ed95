"""Damaged folders of every format that is one: tensors or a NanhuntError, never another exception."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from folder_seeds import NAMES, Files, folder, write

from nanhunt.errors import NanhuntError
from nanhunt.load import open_path


def outcome(files: Files) -> str:
    """What opening and reading gives; any exception but NanhuntError goes through and fails the test."""
    with tempfile.TemporaryDirectory() as place:
        try:
            container = open_path(write(Path(place), files))
            for tensor in container.tensors.values():
                assert tensor.data.shape == tensor.shape
        except NanhuntError as error:
            assert error.message.isprintable()
            assert error.hint.isprintable()
            return "refused"
    return "read"


def damaged(files: Files, draw: random.Random) -> Files:
    """One file with a few other bytes, cut off, longer, gone, or in place of another."""
    found = dict(files)
    name = draw.choice(sorted(found))
    content = bytearray(found[name])
    kind = draw.choice(("flipped", "flipped", "flipped", "cut", "digits", "gone", "swapped"))
    if kind == "flipped":
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(len(content))] = draw.randrange(256)
    elif kind == "cut":
        del content[draw.randrange(len(content)) :]
    elif kind == "digits":  # absurd sizes in JSON
        at = draw.choice([at for at, byte in enumerate(content) if chr(byte).isdigit()] or [0])
        content[at:at] = b"9" * draw.choice((1, 5, 11, 30))
    elif kind == "swapped":
        content = bytearray(found[draw.choice(sorted(found))])
    found[name] = bytes(content)
    if kind == "gone":
        del found[name]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_undamaged_folders(name: str) -> None:
    if not folder(name):
        pytest.skip("zarr is not installed")
    assert outcome(folder(name)) == "read"


@pytest.mark.filterwarnings("ignore")  # zarr on what it does not know
@pytest.mark.parametrize("name", NAMES)
def test_damaged_folders(name: str) -> None:
    if not folder(name):
        pytest.skip("zarr is not installed")
    draw = random.Random(name)
    outcomes = {outcome(damaged(folder(name), draw)) for _ in range(60)}
    assert "refused" in outcomes
