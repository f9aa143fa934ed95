"""The samples are what samples/make.py writes, and hold the faults that it says it planted."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import nanhunt
from nanhunt.load import open_path
from nanhunt.render.proofs import proof
from nanhunt.results.finding import Severity

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
TENSOR_FILES = (".npy", ".npz", ".pt", ".safetensors")
FILES = sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.rglob("*") if path.suffix in TENSOR_FILES)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("make", SAMPLES / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("samples")
    module.write(folder)
    return folder


def contents(path):
    tensors = open_path(str(path)).tensors
    return {name: (t.dtype, t.shape, np.ascontiguousarray(t.data).tobytes()) for name, t in tensors.items()}


@pytest.mark.parametrize("file", FILES)
def test_files_hold_what_the_script_writes(file, made):
    assert contents(SAMPLES / file) == contents(made / file)


def test_no_sample_is_missing(made):
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == FILES


def rows_by_rule(**options):
    return {f.name: f.rows for f in nanhunt.check(SAMPLES / "batch.npz", **options).findings}


def test_planted_faults_are_found_in_their_rows():
    assert rows_by_rule() == {
        "nan-logits": (31,),
        "inf-logits": (53,),
        "fully-masked-row": (37,),
        "target-out-of-range": (47,),
        "masked-target": (37, 50),
        "ignored-row-poisons-gradient": (53,),
        "exp-overflow": (5, 53),
        "sum-overflow": (9,),
        "sum-underflow": (14, 37),
        "probability-underflow": (5, 9, 20, 50),
        "collapsed-loss": (58,),
        "reciprocal-overflow": (26,),
        "low-headroom": (9, 61),
    }


def test_rows_with_broken_input_do_not_disprove_a_fix():
    findings = nanhunt.check(SAMPLES / "batch.npz").findings
    for finding in findings:
        if finding.severity is Severity.WARNING:
            assert finding.remedies[0].works
            assert finding.remedies[0].title == "call F.cross_entropy on the raw logits"


def test_a_fix_that_was_run_on_fewer_rows_says_why():
    (tensor,) = nanhunt.check(SAMPLES / "batch.npz").tensors
    told = {f.name: proof(f.remedies[0], tensor).partition(":")[0] for f in tensor.findings if f.remedies}
    assert told["exp-overflow"] == "proven on 1 row whose input is sound"
    assert told["probability-underflow"] == "proven on 3 rows whose input is sound"
    assert told["sum-overflow"] == "proven on 1 row"


def test_clamping_is_never_a_fix():
    titles = {r.title for f in nanhunt.check(SAMPLES).findings for r in f.remedies if r.works}
    assert titles.isdisjoint(
        {"clamping the logits", "gradient clipping", "nan_to_num on the loss", "log(p + 1e-8)"}
    )


def test_masks_of_a_causal_attention_are_legal():
    (tensor,) = nanhunt.check(SAMPLES / "attention.safetensors").tensors
    rows = {f.name: f.rows for f in tensor.findings}
    assert rows["fully-masked-row"] == rows["sum-underflow"] == (16, 17, 24, 25)
    assert rows["exp-overflow"] == rows["probability-underflow"] == (14,)
    assert set(rows) == {"fully-masked-row", "sum-underflow", "exp-overflow", "probability-underflow"}


def test_checkpoint_has_one_nan_weight():
    (finding,) = nanhunt.check(SAMPLES / "checkpoint.pt").findings
    assert (finding.code, finding.count, finding.rows) == ("NH501", 1, (5 * 8 + 3,))


def test_steps_go_bad_at_the_tenth():
    tensors = nanhunt.check(SAMPLES / "steps").tensors
    warned = [any(f.severity is Severity.WARNING for f in tensor.findings) for tensor in tensors]
    assert warned == [False] * 9 + [True] * 3


def test_the_articles_batch_is_the_one_built_in():
    (tensor,) = nanhunt.compare(SAMPLES / "logits.npy", SAMPLES / "labels.npy").tensors
    assert tensor.truth.loss == pytest.approx(667.27487866, rel=1e-9)


def test_values_that_could_be_logits_say_so(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((4, 5)), b=np.zeros(4), labels=np.arange(4))
    a, b = nanhunt.check(tmp_path / "two.npz").tensors
    assert "--logits" in a.notes[-1]
    assert b.notes == ()
