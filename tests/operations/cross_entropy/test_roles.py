from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from nanhunt.errors import NanhuntError
from nanhunt.load import Container, NothingToCheck, Tensor, open_path, tensor_at
from nanhunt.load.options import ReadOptions
from nanhunt.operations.cross_entropy.roles import choose
from nanhunt.operations.cross_entropy.tensors import CLASS_WEIGHTS, TARGETS


@pytest.fixture
def logits():
    """The articles' batch: ordinary, overflowing, ordinary."""
    return np.array([[2, 1, 0.1], [1000, 1, -1000], [3, 2, 1]], dtype=np.float32)


def container(**tensors: tuple[str, tuple[int, ...]]) -> Container:
    """Tensors that nobody reads: ``logits=("float32", (4, 10))``, with __ for the dot."""
    named = {name.replace("__", "."): spec for name, spec in tensors.items()}
    made = {
        name: Tensor("dump.npz", name, dtype, shape, lambda: np.empty(0))
        for name, (dtype, shape) in named.items()
    }
    return Container("dump.npz", made, "npz")


def roles(chosen):
    """Names: logits, values, and the targets of the first logits."""
    logits = [problem.logits.name for problem in chosen.pairings]
    targets = chosen.pairings[0].targets if chosen.pairings else None
    return logits, [tensor.name for tensor in chosen.values], targets and targets.name


FLOAT = ("float32", (4, 10))
LABELS = ("int64", (4,))


@pytest.mark.parametrize(
    ("tensors", "logits", "values", "targets"),
    [
        ({"x": FLOAT}, ["x"], [], None),
        ({"x": ("bfloat16", (10,))}, ["x"], [], None),
        ({"x": FLOAT, "loss": ("float32", ())}, ["x"], ["loss"], None),
        ({"x": FLOAT, "labels": LABELS}, ["x"], [], "labels"),
        ({"x": FLOAT, "y": LABELS}, ["x"], [], "y"),
        ({"x": FLOAT, "ids": LABELS}, ["x"], [], None),
        ({"x": FLOAT, "label_mask": ("bool", (4,))}, ["x"], [], None),
        ({"logits": FLOAT, "hidden": FLOAT}, ["logits"], ["hidden"], None),
        ({"outputs__logits": FLOAT, "hidden": FLOAT}, ["outputs.logits"], ["hidden"], None),
        ({"logits__0": FLOAT, "logits__1": FLOAT, "h": FLOAT}, ["logits.0", "logits.1"], ["h"], None),
        ({"attn_scores": FLOAT, "h": FLOAT}, ["attn_scores"], ["h"], None),
        ({"logits_per_image": FLOAT, "h": FLOAT}, ["logits_per_image"], ["h"], None),
        ({"logit_scale": ("float32", ()), "text__weight": FLOAT}, [], ["logit_scale", "text.weight"], None),
        ({"score__weight": FLOAT, "h": FLOAT}, [], ["score.weight", "h"], None),
        ({"a": FLOAT, "b": FLOAT}, [], ["a", "b"], None),
        ({"lm_head__weight": FLOAT}, [], ["lm_head.weight"], None),
        ({"hidden": FLOAT}, [], ["hidden"], None),
        ({"probs": FLOAT, "labels": LABELS}, [], ["probs"], None),
        ({"state__0__exp_avg": FLOAT}, [], ["state.0.exp_avg"], None),
        ({"loss": ("float32", ())}, [], ["loss"], None),
        ({"x": FLOAT, "soft_targets": FLOAT}, ["x"], [], "soft_targets"),
        ({"logits": FLOAT, "targets": FLOAT, "labels": LABELS}, ["logits"], ["targets"], "labels"),
        ({"logits": FLOAT, "targets": ("float32", (4,))}, ["logits"], [], "targets"),
        ({"logits": FLOAT, "probs": FLOAT}, ["logits"], ["probs"], None),
        ({"logits": FLOAT, "labels": LABELS, "target_lengths": LABELS}, ["logits"], [], "labels"),
        ({"logits": FLOAT, "labels": LABELS, "y": ("int64", (99,))}, ["logits"], [], "labels"),
        ({"logits": FLOAT, "labels": ("int64", (99,))}, ["logits"], [], "labels"),
        ({"logits": FLOAT, "a__labels": LABELS, "labels": LABELS}, ["logits"], [], "labels"),
        ({"w__weight": FLOAT, "labels": LABELS}, [], ["w.weight"], None),
    ],
)
def test_roles_by_name_and_shape(tensors, logits, values, targets):
    assert roles(choose(container(**tensors), ReadOptions())) == (logits, values, targets)


def targets(chosen):
    """Names of logits and of their targets."""
    return {problem.logits.name: problem.targets and problem.targets.name for problem in chosen.pairings}


STEP = {"logits": FLOAT, "labels": LABELS}


@pytest.mark.parametrize(
    ("tensors", "pairs"),
    [
        (
            {"a__logits": FLOAT, "b__logits": FLOAT, "a__labels": LABELS, "b__labels": LABELS},
            {"a.logits": "a.labels", "b.logits": "b.labels"},
        ),
        (
            {f"{step}__{name}": spec for step in range(12) for name, spec in STEP.items()},
            {f"{step}.logits": f"{step}.labels" for step in range(12)},
        ),
        (
            {f"{name}__{step}": spec for step in (0, 1) for name, spec in STEP.items()},
            {"logits.0": "labels.0", "logits.1": "labels.1"},
        ),
        (
            {f"{name}_{step}": spec for step in (1, 10) for name, spec in STEP.items()},
            {"logits_1": "labels_1", "logits_10": "labels_10"},
        ),
        ({"o__logits__0": FLOAT, "o__logits__1": FLOAT, "y": LABELS}, {"o.logits.0": "y", "o.logits.1": "y"}),
        (
            {"out__3__logits": FLOAT, "out__4__logits": FLOAT, "in__3__y": LABELS, "in__4__y": LABELS},
            {"out.3.logits": "in.3.y", "out.4.logits": "in.4.y"},
        ),
        ({"out__logits": FLOAT, "in__labels": LABELS}, {"out.logits": "in.labels"}),
        ({"own_logits": FLOAT, "teacher_logits": FLOAT, "y": LABELS}, {"own_logits": "y", "teacher_logits": None}),
        (
            {"train_logits": FLOAT, "val_logits": FLOAT, "val_labels": LABELS, "train_labels": LABELS},
            {"train_logits": "train_labels", "val_logits": "val_labels"},
        ),
        (
            {"start_logits": FLOAT, "end_logits": FLOAT, "start_positions": LABELS, "end_positions": LABELS},
            {"start_logits": "start_positions", "end_logits": "end_positions"},
        ),
        ({"0": FLOAT, "1": LABELS}, {"0": "1"}),
        ({"0__0": FLOAT, "0__1": LABELS, "1__0": FLOAT, "1__1": LABELS}, {"0.0": "0.1", "1.0": "1.1"}),
        ({"0": FLOAT, "1": ("int64", (7,))}, {"0": None}),
        ({"0__0": FLOAT, "0__1": ("int64", (7,)), "1__0": FLOAT, "1__1": LABELS}, {"1.0": "1.1"}),
        ({"logits": FLOAT, "a__labels": LABELS, "b__labels": LABELS}, {"logits": None}),
        ({"scores": ("float32", (8,)), "labels": LABELS}, {}),
    ],
)  # fmt: skip
def test_each_step_has_labels_of_its_own(tensors, pairs):
    assert targets(choose(container(**tensors), ReadOptions())) == pairs


def test_labels_that_could_be_either_are_not_guessed():
    three = container(logits=FLOAT, a__labels=LABELS, b__labels=LABELS)
    (problem,) = choose(three, ReadOptions()).pairings
    assert problem.notes == (
        "several tensors could be the labels of dump.npz:logits: a.labels int64 (4,), b.labels int64 (4,). "
        "Choose with --targets NAME",
    )
    assert targets(choose(three, ReadOptions(targets="b.labels"))) == {"logits": "b.labels"}
    with pytest.raises(NanhuntError, match="several tensors could be the labels"):
        choose(three, ReadOptions(targets="*.labels"))


def test_targets_by_glob_are_paired():
    steps = container(
        s1__logits=FLOAT,
        s1__good=LABELS,
        s1__bad=LABELS,
        s2__logits=FLOAT,
        s2__good=LABELS,
        s2__labels=LABELS,
    )
    assert targets(choose(steps, ReadOptions(targets="*.good"))) == {
        "s1.logits": "s1.good",
        "s2.logits": "s2.good",
    }
    assert targets(choose(steps, ReadOptions(targets="dump.npz:s2.g*"))) == dict.fromkeys(
        ("s1.logits", "s2.logits"), "s2.good"
    )


def test_what_is_assumed_is_said():
    def said(file="dump.npz", options=None, **tensors):
        made = dataclasses.replace(container(**tensors), file=file)
        return choose(made, options or ReadOptions()).pairings[0].assumed

    assumed = "assumed to be logits, as the only floating-point tensor here"
    assert said(x=FLOAT) == said(x=FLOAT, labels=LABELS) == said(x=FLOAT, file="a/logits/x.npz") == assumed
    assert said(logits=FLOAT) == said(x=FLOAT, options=ReadOptions(logits=("x",))) == ""
    assert said(x=FLOAT, y=LABELS, options=ReadOptions(targets="y")) == ""
    unnamed = Container("a/eval-logits.v2.npy", {"": container(x=FLOAT).tensors["x"]}, "npy")
    unnamed.tensors[""] = dataclasses.replace(unnamed.tensors[""], name="")
    assert choose(unnamed, ReadOptions()).pairings[0].assumed == ""
    assert choose(dataclasses.replace(unnamed, file="a/x.npy"), ReadOptions()).pairings[0].assumed == assumed
    assert said(**{"0": FLOAT, "1": LABELS}) == assumed
    assert not choose(dataclasses.replace(unnamed, file="a/hidden.npy"), ReadOptions()).pairings


def test_a_scalar_named_as_logits_is_left_to_the_shape_check():
    scalar = container(loss=("float32", ()), labels=LABELS, y=LABELS)
    assert targets(choose(scalar, ReadOptions(logits=("loss",)))) == {"loss": None}


def test_class_axis_decides_which_labels_fit():
    images = container(logits=("float32", (2, 10, 5)), labels=("int64", (2, 5)), y=("int64", (2, 10)))
    assert roles(choose(images, ReadOptions(class_axis=1)))[2] == "labels"
    assert roles(choose(images, ReadOptions()))[2] == "y"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (("h",), ["h"]),
        (("layers.*.scores",), ["layers.0.scores", "layers.1.scores"]),
        (("h", "layers.1.scores", "h"), ["h", "layers.1.scores"]),
        (("*",), ["layers.0.scores", "layers.1.scores", "h", "a[0]"]),
        (("a[0]",), ["a[0]"]),
    ],
)
def test_logits_by_name_and_glob(asked, found):
    tensors = {"layers__0__scores": FLOAT, "layers__1__scores": FLOAT, "h": FLOAT, "a[0]": FLOAT, "n": LABELS}
    assert roles(choose(container(**tensors), ReadOptions(logits=asked))) == (found, [], None)


def test_logits_not_found_lists_what_there_is():
    many = container(logits=FLOAT, **{f"w{number}": FLOAT for number in range(20)})
    with pytest.raises(NanhuntError, match=r'dump\.npz holds no tensor "logit"') as caught:
        choose(many, ReadOptions(logits=("logit",)))
    assert 'Did you mean "logits"?' in caught.value.hint
    assert "logits float32 (4, 10)" in caught.value.hint
    assert "and 9 more" in caught.value.hint


def test_an_unnamed_tensor_has_no_name_to_ask_for(tmp_path, logits):
    np.save(tmp_path / "x.npy", logits)
    with pytest.raises(NanhuntError) as caught:
        choose(open_path(str(tmp_path / "x.npy")), ReadOptions(logits=("logits",)))
    assert "one tensor without a name" in caught.value.hint


@pytest.mark.parametrize(("asked", "dtype"), [("labels", "int64"), ("lab*", "int64"), ("z", "complex64")])
def test_logits_of_the_wrong_kind(asked, dtype):
    with pytest.raises(NanhuntError, match=f"is {dtype}, which cannot be logits"):
        choose(container(x=FLOAT, labels=LABELS, z=("complex64", (4, 10))), ReadOptions(logits=(asked,)))


def test_complex_values_are_judged_as_their_parts():
    (found,) = choose(container(x=FLOAT, h=FLOAT, z=("complex64", (4, 10))), ReadOptions()).values[2:]
    assert (found.name, found.dtype, found.shape) == ("z", "float32", (4, 10, 2))


@pytest.mark.parametrize("tensors", [{"labels": LABELS}, {"mask": ("bool", (4,))}])
def test_nothing_floating(tensors):
    with pytest.raises(NothingToCheck, match="holds no floating-point tensor"):
        choose(container(**tensors), ReadOptions())


def test_what_cannot_be_read_is_not_nothing(tmp_path, logits):
    np.savez(tmp_path / "x.npz", logits=logits.astype(ml_dtypes.bfloat16), labels=np.arange(3))
    with pytest.raises(NanhuntError) as caught:
        choose(open_path(str(tmp_path / "x.npz")), ReadOptions())
    assert not isinstance(caught.value, NothingToCheck)
    assert "--stored-dtype bfloat16" in caught.value.hint


def test_logits_that_cannot_be_read_are_not_passed_over(tmp_path, logits):
    np.savez(tmp_path / "x.npz", logits=logits.astype(ml_dtypes.bfloat16), hidden=logits)
    dump = open_path(str(tmp_path / "x.npz"))
    with pytest.raises(NanhuntError, match=r"x\.npz:logits"):
        choose(dump, ReadOptions())
    assert roles(choose(dump, ReadOptions(logits=("hidden",)))) == (["hidden"], [], None)


def test_text_beside_labels_is_nothing(tmp_path):
    np.savez(tmp_path / "x.npz", labels=np.arange(3), names=np.array(["a", "b", "c"]))
    with pytest.raises(NothingToCheck):
        choose(open_path(str(tmp_path / "x.npz")), ReadOptions())


@pytest.fixture
def dump(tmp_path, logits, monkeypatch):
    """A container with logits, and other files beside it, all in the working folder."""
    monkeypatch.chdir(tmp_path)
    np.savez("dump.npz", logits=logits, gold=np.array([0, 2, 1]), soft=logits, w=np.ones(3, np.float32))
    np.save("labels.npy", np.array([0, 2, 1]))
    np.savez("other.npz", labels=np.arange(3), rows=np.arange(3), weights=np.ones(3), x=logits)
    np.savez("a:b.npz", p=np.arange(3), q=np.arange(3))
    (tmp_path / "notes.txt").write_text("hello")
    return open_path("dump.npz")


@pytest.mark.parametrize(
    ("asked", "source"),
    [
        ("gold", "dump.npz:gold"),
        ("soft", "dump.npz:soft"),
        ("dump.npz:gold", "dump.npz:gold"),
        ("labels.npy", "labels.npy"),
        ("other.npz", "other.npz:labels"),
        ("other.npz:rows", "other.npz:rows"),
        ("a:b.npz:q", "a:b.npz:q"),
    ],
)
def test_targets_by_name_and_file(dump, asked, source):
    chosen = choose(dump, ReadOptions(targets=asked))
    (problem,) = chosen.pairings
    assert problem.targets is not None
    assert problem.source == problem.targets.label == source
    assert "soft" not in [tensor.name for tensor in chosen.values if source.endswith("soft")]


@pytest.mark.parametrize(
    ("asked", "says", "way_out"),
    [
        ("labels.np", "neither a file nor a tensor", 'Did you mean "labels.npy"'),
        ("golt", "neither a file nor a tensor", 'Did you mean "gold"'),
        ("other.npz:label", 'holds no tensor "label"', 'Did you mean "labels"'),
        ("a:b.npz", "not clear which are the targets", "--targets a:b.npz:NAME"),
        ("notes.txt", "looks like text", "numpy.loadtxt"),
        (".", "is a folder", "Name a file"),
        ("", "neither a file nor a tensor", "The file holds these"),
    ],
)
def test_targets_that_lead_nowhere(dump, asked, says, way_out):
    with pytest.raises(NanhuntError) as caught:
        choose(dump, ReadOptions(targets=asked))
    assert says in caught.value.message
    assert way_out in caught.value.hint


def test_a_targets_file_without_tensors_is_an_error_even_in_a_search(dump):
    np.savez("empty.npz")
    with pytest.raises(NanhuntError) as caught:
        choose(dump, ReadOptions(targets="empty.npz"))
    assert not isinstance(caught.value, NothingToCheck)


@pytest.mark.parametrize(("asked", "label"), [("w", "dump.npz:w"), ("other.npz", "other.npz:weights")])
def test_class_weights(dump, asked, label):
    chosen = choose(dump, ReadOptions(class_weights=asked))
    assert chosen.class_weights is not None
    assert chosen.class_weights.label == label
    assert "w" not in [tensor.name for tensor in chosen.values if label.endswith(":w")]


def test_targets_are_not_looked_for_where_no_logits_are(dump):
    weights = container(lm_head__weight=FLOAT)
    assert not choose(weights, ReadOptions(targets="gold", class_weights="w")).pairings


def test_a_tensor_at_a_path_without_a_container(dump):
    assert tensor_at("labels.npy", TARGETS).data.tolist() == [0, 2, 1]
    assert tensor_at("other.npz:rows", TARGETS).name == "rows"
    assert tensor_at("other.npz", CLASS_WEIGHTS).name == "weights"
    with pytest.raises(NanhuntError, match="is not a file") as caught:
        tensor_at("label.npy", TARGETS)
    assert 'Did you mean "labels.npy"' in caught.value.hint


def test_an_unnamed_tensor_is_not_its_own_target(dump):
    with pytest.raises(NanhuntError, match="neither a file nor a tensor"):
        tensor_at("", TARGETS, None, open_path("labels.npy"))
