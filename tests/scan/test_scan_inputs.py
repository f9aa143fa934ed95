"""Many inputs, one report: order, errors beside results, options by path, and no trace of how rows were blocked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nanhunt
from nanhunt.errors import Interrupted
from nanhunt.operations.cross_entropy import units
from nanhunt.operations.run import Tables
from nanhunt.results.report import Report, merge
from nanhunt.scan.inputs import Scan
from nanhunt.scan.options import Options


def mixed(rows: int, classes: int) -> np.ndarray:
    """Healthy rows with every kind of trouble strewn in."""
    x = np.random.default_rng(5).standard_normal((rows, classes)).astype(np.float32)
    x[3::17] += 1000.0
    x[5::19] -= 500.0
    x[7::23, 0] = np.nan
    x[11::29, 1:] = -np.inf
    x[13::31, :] = -np.inf
    x[2::37, 0] = 87.0
    x[4::41, 1] = 30.0
    return x


LABELS = np.arange(400) % 8


def strewn() -> np.ndarray:
    """Labels for 400 rows, some ignored, some out of range."""
    labels = LABELS.copy()
    labels[::13] = -100
    labels[9::57] = 99
    return labels


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("judge", [nanhunt.check, nanhunt.compare])
def test_the_answer_does_not_depend_on_the_size_of_blocks(
    judge: object, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = mixed(400, 8), strewn()
    whole: Report = judge(x, labels, dtype)  # type: ignore[operator]
    for values in (56, 800):
        monkeypatch.setattr(units, "BLOCK_VALUES", values)
        monkeypatch.setattr(units, "SCREEN_BYTES", 8 * values)
        parts: Report = judge(x, labels, dtype)  # type: ignore[operator]
        assert parts.findings == whole.findings
        assert parts.tensors[0].strip == whole.tensors[0].strip
        for name, seen in whole.tensors[0].implementations.items():
            again = parts.tensors[0].implementations[name]
            assert replace(again, loss=None) == replace(seen, loss=None)
            # Sums of sums in float64 may differ in the last digit.
            assert seen.loss is None or again.loss == pytest.approx(seen.loss, rel=1e-12, nan_ok=True)


def test_check_and_compare_find_the_same(tmp_path: Path) -> None:
    x, labels = mixed(400, 8), strewn()
    for dtype in ("float64", "float32", "bfloat16", "float16"):
        assert nanhunt.check(x, labels, dtype).findings == nanhunt.compare(x, labels, dtype).findings


def test_reports_add_up_in_any_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        np.save(tmp_path / f"step-{number}.npy", np.full((2, 3), 50.0 * number, np.float32))
    paths = [str(tmp_path / f"step-{number}.npy") for number in (10, 2, 1)]
    scan = Scan(Options())
    whole = merge(scan.paths([*paths, str(tmp_path / "missing.npy")]))
    assert [Path(tensor.file).name for tensor in whole.tensors] == ["step-1.npy", "step-2.npy", "step-10.npy"]
    assert whole.exit_code == 2
    single = [scan.path(path) for path in paths]
    assert merge(single).to_json() == merge(reversed(single)).to_json()
    assert merge([*single, Report(errors=whole.errors, exit_code=2)]).to_json() == whole.to_json()


def test_options_may_differ_by_path(tmp_path: Path) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.full((2, 3), 500.0, np.float32))
    plain = Options()
    scan = Scan(plain, options_for=lambda path: replace(plain, select=("NH2",)) if "a.npy" in path else plain)
    report = merge(scan.paths([str(tmp_path)]))
    assert [bool(tensor.findings) for tensor in report.tensors] == [False, True]


def test_tables_are_filled_for_every_row_and_dtype() -> None:
    tables: Tables = {}
    scan = Scan(Options(dtype=("float32", "float16")), tables=tables)
    scan.without_a_file()
    assert [dtype for _, dtype in tables] == ["float32", "float16"]
    for table in tables.values():
        assert table.columns["cause"].tolist() == ["", "exp-overflow", ""]


def test_progress_is_told_every_byte() -> None:
    told: list[int] = []
    Scan(Options(), compares=True, advance=told.append).without_a_file()
    assert sum(told) == 9 * 4


class Stop:
    """Presses Ctrl-C once a number of bytes are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, size: int) -> None:
        """Told of bytes."""
        self.left -= size
        if self.left <= 0:
            raise KeyboardInterrupt


def test_an_interrupt_keeps_the_tensors_that_were_known(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones((4, 4), np.float32), b=np.full((4, 4), 1e-9, np.float32), c=np.ones(1 << 10))
    scan = Scan(Options(dtype=("float16",)), advance=Stop(after=100 + 64))
    with pytest.raises(KeyboardInterrupt):
        list(scan.paths([str(path)]))
    known = merge(scan.unfinished)
    assert [tensor.tensor for tensor in known.tensors] == ["a", "b"]
    assert known.findings[0].code == "NH502"


@pytest.mark.parametrize("every_row", [False, True])
def test_an_interrupt_tells_what_was_known_of_the_rows(
    every_row: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "SCREEN_BYTES", 1 << 10)
    monkeypatch.setattr(units, "BLOCK_VALUES", 1 << 8)
    path, logits = tmp_path / "logits.npy", np.zeros((64, 16), np.float32)
    logits[:, 0] = 1.0
    logits[[3, 40]] += 200.0
    np.save(path, logits)
    scan = Scan(Options(), compares=every_row, advance=Stop(after=2 << 10))
    with pytest.raises(Interrupted, match=r"of the first 16 of 64 rows 1 have findings"):
        list(scan.paths([str(path)]))


def test_labels_saved_as_floats_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "dump.npz"
    np.savez(path, logits=np.zeros((4, 3), np.float32), labels=np.array([0.0, 1.0, 2.0, 0.0], np.float32))
    (logits,) = [tensor for tensor in nanhunt.check(str(path)).tensors if tensor.role == "logits"]
    assert "labels is float32, so it was not taken for labels. Save class numbers as int64." in logits.notes
    np.savez(path, logits=np.zeros((4, 3), np.float32), labels=np.array([0, 1, 2, 0]))
    (logits,) = nanhunt.check(str(path)).tensors
    assert not [note for note in logits.notes if "taken for labels" in note]
