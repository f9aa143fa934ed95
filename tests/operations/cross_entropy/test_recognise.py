"""Whose loss is it: what the values tell, what is assumed, and what is not judged at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nanhunt
from nanhunt.results.tensor import TensorReport

RNG = np.random.default_rng(7)
LOGITS = RNG.standard_normal((64, 10)).astype(np.float32)
LABELS = RNG.integers(0, 10, 64)


def checked(path: Path, options: dict[str, Any] | None = None, **arrays: Any) -> TensorReport:
    """The report on the first tensor of a dump."""
    np.savez(path / "dump.npz", **arrays)
    report = nanhunt.check(path / "dump.npz", **(options or {}))
    assert not report.errors
    return report.tensors[0]


def said(tensor: TensorReport) -> str:
    return "\n".join(tensor.notes)


ONE_HOT = np.eye(10)[LABELS]
MULTI_HOT = (RNG.random((64, 10)) < 0.4).astype(np.float32)
SOFT = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
PADDED = np.where(np.arange(64)[:, None] % 5 == 0, 0.0, SOFT).astype(np.float32)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (LOGITS[:, :1], RNG.integers(0, 2, (64, 1)).astype(np.float32), "one class a row"),
        (LOGITS[:, :1], RNG.integers(0, 2, 64), "one class a row"),
        (LOGITS[:, :1], None, "one class a row"),
        (LOGITS, MULTI_HOT, "rows that add up to"),
        (LOGITS, MULTI_HOT.astype(np.int64), "rows that add up to"),
        (LOGITS, MULTI_HOT.astype(bool), "rows that add up to"),
        (LOGITS, MULTI_HOT * 0, "rows that add up to 0,"),
        (LOGITS, np.where(np.arange(64)[:, None] % 9, ONE_HOT, 0), "rows that add up to 0 to 1,"),
        (
            LOGITS,
            np.where(np.arange(64)[:, None] % 9, ONE_HOT, 0).astype(np.int64),
            "rows that add up to 0 to 1,",
        ),
        (LOGITS, RNG.standard_normal((64, 10)), "negative numbers"),
        (LOGITS, SOFT * np.linspace(0.9, 1.1, 64)[:, None], "rows that add up to 0.9 to 1.1,"),
        (LOGITS[:, 0], MULTI_HOT[:, 0], "has the logits' shape"),
        (LOGITS[:, 0], MULTI_HOT[:, 0] > 0, f"rows that add up to {MULTI_HOT[:, 0].sum():.0f},"),
    ],
)
def test_the_targets_of_another_loss_leave_numbers_only(
    tmp_path: Path, logits: Any, labels: Any, words: str
) -> None:
    hot = logits * 1000  # would break any softmax
    arrays = {"logits": hot} if labels is None else {"logits": hot, "labels": labels}
    tensor = checked(tmp_path, **arrays)
    assert tensor.role == "values"
    assert tensor.findings == ()
    assert words in said(tensor)
    assert "judged as numbers only" in tensor.notes[-1]
    with pytest.raises(nanhunt.NanhuntError, match="Nothing here looks like logits"):
        raise_first(nanhunt.compare(tmp_path / "dump.npz"))


@pytest.mark.parametrize("labels", [None, np.linspace(-2, 2, 64, dtype=np.float32)])
def test_what_is_judged_as_numbers_is_not_said_to_be_taken_for_logits(tmp_path: Path, labels: Any) -> None:
    column = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    tensor = checked(tmp_path, **({"column": column} if labels is None else {"column": column, "y": labels}))
    assert tensor.role == "values"
    assert "assumed to be logits" not in said(tensor)


@pytest.mark.parametrize("count", [9, 11])
def test_there_is_one_class_weight_a_class(count: int) -> None:
    with pytest.raises(nanhunt.NanhuntError, match="for 10 classes"):
        nanhunt.check(LOGITS, LABELS, class_weights=np.ones(count))


@pytest.mark.parametrize("label", [-101, 10, 11, -1])
def test_a_label_that_is_neither_a_class_nor_ignored_has_no_loss(label: int) -> None:
    labels = LABELS.copy()
    labels[3], labels[5] = label, -100
    report = nanhunt.compare(LOGITS, labels)
    assert [(finding.code, finding.rows) for finding in report.findings] == [("NH005", (3,))]
    kept = np.delete(np.arange(64), [3, 5])
    mean = F.cross_entropy(torch.from_numpy(LOGITS[kept]), torch.from_numpy(LABELS[kept]))
    assert report.tensors[0].implementations["fused"].loss == pytest.approx(float(mean), rel=1e-5)
    assert report.tensors[0].targets.ignored == 1


def raise_first(report: nanhunt.Report) -> None:
    (error,) = report.errors
    raise nanhunt.NanhuntError(error.message, error.hint)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS.astype(np.float32), "Save class numbers as int64"),
        (LABELS.astype(np.float64)[:, None], "Save class numbers as int64"),
        (RNG.standard_normal(64), "looks like a regression"),
        (ONE_HOT.astype(np.int64), "labels is one-hot in int64, which F.cross_entropy does not take"),
        (ONE_HOT.astype(bool), "labels is one-hot in bool"),
        (LABELS > 4, "labels is bool"),
        (LABELS[:50], "has shape (50,), which does not fit"),
    ],
)
def test_labels_that_no_loss_was_given_leave_the_softmax(tmp_path: Path, labels: Any, words: str) -> None:
    tensor = checked(tmp_path, logits=LOGITS, labels=labels)
    assert (tensor.role, tensor.targets) == ("logits", None)
    assert words in said(tensor)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (MULTI_HOT, "rows that add up to"),
        (MULTI_HOT.astype(np.int64), "rows that add up to"),
        (ONE_HOT.astype(np.int64), "one-hot"),
        (LABELS > 4, "bool"),
        (LABELS.astype(np.float32), "class numbers"),
        (RNG.standard_normal((64, 10)), "negative"),
        (LABELS.astype(np.complex64), "complex64"),
    ],
)
def test_targets_that_were_named_are_refused(targets: Any, words: str) -> None:
    with pytest.raises(nanhunt.NanhuntError) as raised:
        nanhunt.check(LOGITS, targets)
    assert words in f"{raised.value.message} {raised.value.hint}"
    with pytest.raises(nanhunt.NanhuntError):
        nanhunt.check(LOGITS[:, :1], np.zeros((64, 1), np.float32))


@pytest.mark.parametrize("targets", [SOFT, SOFT.astype(np.float16), ONE_HOT, PADDED, SOFT * np.nan])
def test_probabilities_are_probabilities(tmp_path: Path, targets: Any) -> None:
    tensor = checked(tmp_path, logits=LOGITS, soft_targets=targets)
    assert tensor.targets is not None
    assert tensor.targets.source.endswith("soft_targets")
    assert tensor.notes == ()


def test_bfloat16_and_float8_probabilities_are_probabilities() -> None:
    soft = torch.from_numpy(SOFT)
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        assert nanhunt.check(LOGITS, soft.to(dtype)).tensors[0].targets


def test_a_regression_is_not_told_to_use_cross_entropy(tmp_path: Path) -> None:
    for target in (RNG.standard_normal(64), RNG.standard_normal((64, 3)) * 1e3):
        tensor = checked(tmp_path, pred=1e3 * RNG.standard_normal((64, 3)), target=target)
        assert (tensor.role, tensor.findings) == ("values", ())


def test_the_user_may_say_that_a_softmax_follows(tmp_path: Path) -> None:
    tensor = checked(tmp_path, {"logits": "logits"}, logits=LOGITS * 1000, labels=MULTI_HOT)
    assert (tensor.role, tensor.targets) == ("logits", None)
    assert tensor.findings
    tensor = checked(tmp_path, {"logits": "x"}, x=LOGITS[:, :1])
    assert tensor.role == "logits"
    assert "one class a row" in said(tensor)


def test_a_softmax_of_probabilities_is_said(tmp_path: Path) -> None:
    (note,) = checked(tmp_path, logits=SOFT, labels=LABELS).notes
    assert note.startswith("the rows are probabilities: nonnegative, adding up to 1. A softmax over them")
    (note,) = checked(tmp_path, logits=np.tile(SOFT, (10, 1)), labels=np.tile(LABELS, 10)).notes
    assert "(64 of 640 looked at)" in note
    for harmless in (abs(LOGITS), SOFT - 0.01, np.log(SOFT), np.where(LABELS[:, None] == 3, 0, SOFT)):
        assert checked(tmp_path, logits=harmless, labels=LABELS).notes == ()


def test_minus_one_is_asked_about(tmp_path: Path) -> None:
    ask = "say --ignore-index -1"
    tensor = checked(tmp_path, logits=LOGITS, labels=np.where(LABELS > 4, -1, LABELS))
    assert [finding.code for finding in tensor.findings] == ["NH005"]
    assert (
        f"{(LABELS > 4).sum()} of 64 labels are -1: if that marks rows that the loss leaves out, {ask}"
        in tensor.notes
    )
    assert "every label is -1" in said(checked(tmp_path, logits=LOGITS, labels=np.full(64, -1)))
    assert "say --ignore-index 255" in said(
        checked(tmp_path, logits=LOGITS, labels=np.where(LABELS > 4, 255, LABELS))
    )
    ask = "--ignore-index"
    for labels in (
        np.where(LABELS > 4, 77, LABELS),
        np.where(LABELS > 4, -LABELS, LABELS),
        np.where(LABELS > 4, -1, LABELS + 8),
        LABELS,
    ):
        assert ask not in said(checked(tmp_path, logits=LOGITS, labels=labels))
    known = checked(tmp_path, {"ignore_index": -1}, logits=LOGITS, labels=np.where(LABELS > 4, -1, LABELS))
    assert (known.findings, known.notes) == ((), ())


# ---------------------------------------------------------------------------------------------- layouts

IMAGES = RNG.standard_normal((2, 5, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 6, 7), (2, 1, 6, 7)])
def test_the_class_axis_shows_in_the_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    labels = RNG.integers(0, 5, shape)
    tensor = checked(tmp_path, logits=IMAGES, labels=labels, mask=labels + 1)
    assert (tensor.class_axis, tensor.classes, tensor.rows) == (1, 5, 84)
    assert tensor.targets
    assert tensor.notes == (
        "class axis 1, as the shape of labels says: (2, 5, 6, 7) without its second dimension is (2, 6, 7)",
    )
    report = nanhunt.compare(tmp_path / "dump.npz").tensors[0]
    expected = F.cross_entropy(torch.from_numpy(IMAGES), torch.from_numpy(labels.reshape(2, 6, 7))).item()
    assert report.implementations["fused"].loss == pytest.approx(expected, rel=1e-5)


def test_a_shape_that_says_two_things_is_told(tmp_path: Path) -> None:
    tensor = checked(tmp_path, logits=RNG.standard_normal((3, 4, 4)), targets=RNG.integers(0, 4, (3, 4)))
    assert tensor.class_axis == -1
    assert "where they are the second: --class-axis 1" in said(tensor)
    asked = checked(
        tmp_path, {"class_axis": 1}, logits=RNG.standard_normal((3, 4, 4)), targets=np.zeros((3, 4), int)
    )
    assert (asked.class_axis, asked.notes) == (1, ())


# ---------------------------------------------------------------------------------------------- shifted labels

TOKENS = RNG.integers(0, 50, (4, 20))


def predictions(tokens: Any, strength: float = 0.0) -> Any:
    """Logits (batch, time, 50) that favour these tokens."""
    noise = np.random.default_rng(1).standard_normal((*tokens.shape, 50)).astype(np.float32)
    return noise + (strength * np.eye(50)[tokens]).astype(np.float32)


AHEAD = np.roll(TOKENS, -1, axis=1)
HIDDEN = np.where(np.arange(20) < 6, -100, TOKENS)


def shifted_loss(logits: Any, labels: Any) -> float:
    """As transformers computes it."""
    x, y = torch.from_numpy(logits)[:, :-1], torch.from_numpy(labels)[:, 1:]
    return F.cross_entropy(x.flatten(0, 1), y.flatten()).item()


@pytest.mark.parametrize("labels", [TOKENS, HIDDEN])
def test_labels_that_are_the_inputs_are_shifted(tmp_path: Path, labels: Any) -> None:
    for logits in (predictions(TOKENS), predictions(TOKENS, 9.0), predictions(AHEAD, 9.0)):
        tensor = checked(tmp_path, logits=logits, labels=labels, input_ids=TOKENS)
        assert tensor.notes == (
            "the labels are input_ids themselves, so the logits at position t are judged against label t + 1 "
            "(--no-shift: label t)",
        )
        loss = nanhunt.compare(tmp_path / "dump.npz").tensors[0].implementations["fused"].loss
        assert loss == pytest.approx(shifted_loss(logits, labels), rel=1e-5)


@pytest.mark.parametrize("labels", [AHEAD, np.where(TOKENS % 7 == 0, TOKENS + 1, -100), TOKENS % 9])
def test_other_labels_beside_the_inputs_stay_where_they_are(tmp_path: Path, labels: Any) -> None:
    tensor = checked(tmp_path, logits=predictions(TOKENS), labels=labels, input_ids=TOKENS)
    assert tensor.targets is not None
    assert tensor.notes == ()


def test_the_logits_tell_where_the_inputs_are_missing(tmp_path: Path) -> None:
    logits = predictions(AHEAD, 9.0)
    shifted = checked(tmp_path, logits=logits, labels=TOKENS)
    assert "average for label t + 1 than for label t" in said(shifted)
    loss = nanhunt.compare(tmp_path / "dump.npz").tensors[0].implementations["fused"].loss
    assert loss == pytest.approx(shifted_loss(logits, TOKENS), rel=1e-5)
    plain = checked(tmp_path, logits=logits, labels=AHEAD)
    assert "average for label t than for label t + 1" in said(plain)
    assert "--shift" in said(plain)
    assert checked(tmp_path, logits=logits, targets=AHEAD).notes == ()


def test_where_nothing_tells_it_is_asked(tmp_path: Path) -> None:
    logits = 30 * predictions(TOKENS)
    tensor = checked(tmp_path, logits=logits, labels=TOKENS)
    assert (tensor.role, tensor.targets) == ("logits", None)
    assert "Say --no-shift or --shift to have the loss judged" in said(tensor)
    for shift, loss in ((True, shifted_loss(logits, TOKENS)), (False, None)):
        tensor = nanhunt.compare(tmp_path / "dump.npz", shift=shift).tensors[0]
        assert tensor.targets is not None
        assert ("judged against label t + 1" in said(tensor)) == shift
        if loss:
            assert tensor.implementations["fused"].loss == pytest.approx(loss, rel=1e-5)
    named = nanhunt.check(tmp_path / "dump.npz", "labels").tensors[0]
    assert named.targets is not None
    assert "position t are judged against label t; for unshifted labels" in said(named)
    assert checked(tmp_path, logits=logits, targets=AHEAD).notes == ()


def test_logits_without_the_last_position_are_recognised(tmp_path: Path) -> None:
    logits = predictions(TOKENS)
    tensor = checked(tmp_path, logits=logits[:, :-1], labels=TOKENS)
    assert tensor.rows == 4 * 19
    assert "labels are one longer than the logits" in said(tensor)
    loss = nanhunt.compare(tmp_path / "dump.npz").tensors[0].implementations["fused"].loss
    assert loss == pytest.approx(shifted_loss(logits, TOKENS), rel=1e-5)


def test_shift_that_makes_no_sense_is_refused() -> None:
    for logits, targets in ((LOGITS[0], LABELS[:1]), (LOGITS, SOFT)):
        with pytest.raises(nanhunt.NanhuntError, match="--shift"):
            nanhunt.check(logits, targets, shift=True)


@pytest.mark.parametrize("cut", [False, True])
def test_a_fix_makes_the_shifted_labels_too(cut: bool) -> None:
    logits = 40 * predictions(AHEAD, 1.0)
    x = logits[:, :-1] if cut else logits
    report = nanhunt.check(x, TOKENS, shift=None if cut else True)
    remedy = next(remedy for finding in report.findings for remedy in finding.remedies if remedy.works)
    names: dict[str, Any] = {
        "logits": torch.from_numpy(x),
        "targets": torch.from_numpy(TOKENS),
        "F": F,
        "torch": torch,
    }
    exec(remedy.snippet, names)
    assert names["loss"].item() == pytest.approx(shifted_loss(logits, TOKENS), rel=1e-5)
