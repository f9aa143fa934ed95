"""Finite numbers that ruin the next step: told with what torch's own Adam then does, and silent on fresh models."""

from __future__ import annotations

import math

import pytest
import torch

import nanhunt
from nanhunt.operations.values import training


def next_update(m: torch.Tensor, v: torch.Tensor, step: float = 1000.0) -> torch.Tensor:
    """What torch.optim.Adam with lr 1 does to weights of 0 from that state, in the dtype of ``v``."""
    weight = torch.nn.Parameter(torch.zeros_like(v))
    optimizer = torch.optim.Adam([weight], lr=1.0, foreach=False)
    weight.grad = torch.zeros_like(v)
    optimizer.step()
    optimizer.state[weight] |= {"exp_avg": m.clone(), "exp_avg_sq": v.clone(), "step": torch.tensor(step)}
    weight.data.zero_()
    optimizer.step()
    return weight.detach()


def codes(tensors, **options) -> dict[str, str]:
    """Code to message."""
    return {finding.code: finding.message for finding in nanhunt.check(tensors, **options).findings}


def state(m: torch.Tensor, v: torch.Tensor, step: float = 1000.0):
    return {"optimizer": {"state": {"0": {"step": torch.tensor(step), "exp_avg": m, "exp_avg_sq": v}}}}


def test_a_negative_second_moment_is_nan_at_the_next_step():
    m, v = torch.tensor([1e-3, 1e-3]), torch.tensor([1e-6, -1e-6])
    assert next_update(m, v).isnan().tolist() == [False, True]
    assert codes(state(m, v)) == {
        "NH505": "1 of 2 values are negative: sqrt of it is NaN, as is the weight after the next step "
        "(the first is -1e-06)"
    }


def test_so_is_one_of_adafactor():
    def adafactor(row: torch.Tensor):
        return {"optimizer": {"state": {"0": {"exp_avg_sq_row": row, "exp_avg_sq_col": torch.ones(4)}}}}

    row = torch.tensor([1e-6, 2e-6, 1e-6])
    assert not codes(adafactor(row))
    row[1] = -1e-6
    assert list(codes(adafactor(row))) == ["NH505"]
    assert (row / row.mean()).rsqrt().isnan().any()  # transformers/optimization.py, _approx_sq_grad


def test_a_flushed_second_moment_makes_the_update_it_says():
    m = torch.tensor([1e-4, 1e-4, 0.0])
    v = torch.tensor([1e-8, 1e-8, 0.0])
    v[1] = v[1].half().float()  # saved as float16
    assert v[1] == 0
    update = next_update(m, v)
    said = codes(state(m, v))
    assert list(said) == ["NH506"]
    assert (
        "1 of 3 values are 0 where exp_avg is not: the next update is 0.0001 / (0 + eps 1e-08) = 1e+04"
        in said["NH506"]
    )
    assert 1e3 < abs(update[1].item()) < 1e5 < 1e6 * abs(update[0].item())


def test_eps_is_zero_in_float16():
    m, v = torch.zeros(2, dtype=torch.float16), torch.tensor([1e-3, 0.0], dtype=torch.float16)
    assert next_update(m, v).isnan().tolist() == [False, True]
    assert list(codes(state(m, v))) == ["NH507"]
    assert not codes(state(m.bfloat16(), v.bfloat16()))  # bfloat16 holds 1e-8
    assert next_update(m.bfloat16(), v.bfloat16()).isfinite().all()


def test_a_step_of_zero_beside_moments():
    m, v = torch.full((2,), 1e-3), torch.full((2,), 1e-6)
    assert list(codes(state(m, v, step=0.0))) == ["NH508"]
    assert (
        abs(next_update(m, v, step=0.0)[0]) > 0.2 > 0
    )  # of the first step's 1, though m / sqrt(v) was 1 all along
    assert list(codes(state(m, v, step=math.inf))) == ["NH501"]


def test_a_step_of_zero_beside_moments_of_zero_is_a_fresh_optimizer():
    assert not codes(state(torch.zeros(2), torch.zeros(2), step=0.0))


def test_what_is_read_in_parts_is_found_in_its_place(monkeypatch):
    whole = torch.ones(8)
    whole[6] = -1e-6
    moments = torch.zeros(8)
    moments[5] = 1e-3
    flushed = torch.ones(8)
    flushed[5] = 0.0
    told = []
    for chunk in (3, 1 << 20):
        monkeypatch.setattr(training, "CHUNK", chunk)
        (negative,) = nanhunt.check(state(torch.zeros(8), whole)).findings
        (lost,) = nanhunt.check(state(moments, flushed)).findings
        told.append((negative.rows, negative.message, lost.rows, lost.message))
    assert told[0] == told[1]
    assert (told[0][0], told[0][2]) == ((6,), (5,))


def test_variances_and_scales():
    assert list(codes({"bn": {"running_var": torch.tensor([1.0, -0.5])}})) == ["NH509"]
    assert torch.nn.functional.batch_norm(
        torch.ones(1, 2), torch.zeros(2), torch.tensor([1.0, -0.5])
    ).isnan().tolist() == [[False, True]]
    block = {"weight": torch.ones(3)}
    (note,) = nanhunt.check({"layer": {**block, "weight_scale": torch.tensor([0.5, 0.0, 0.1])}}).findings
    assert (note.code, note.severity, note.rows) == ("NH510", "note", (1,))
    assert list(codes({"layer": {**block, "weight_scale": torch.tensor([math.nan, 0.5])}})) == ["NH501"]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("bn1.running_var", [1.0, 0.0], {"NH512": "1 of 2 values are 0"}),
        (
            "layers.0.input_layernorm.weight",
            [1.0, 0.0, -0.5, 2.0, 1.0],
            {"NH513": "2 of 5 values are 0 or negative"},
        ),
        ("ln_f.weight", [1.0, 0.9], {}),
        ("layer4.1.bn2.weight", [0.0, 0.0], {}),  # zero-init-residual of a fresh ResNet
        ("model.norm.weight", [-0.1, 0.2, -0.3], {}),  # Gemma's norm multiplies by 1 + weight
        ("norm_projection.weight", [[1.0, -1.0, 2.0]], {}),  # a matrix
    ],
)
def test_norms_that_switch_channels_off_are_a_note(name, values, said):
    report = nanhunt.check({name: torch.tensor(values), "fc.weight": torch.ones(2, 2)})
    found = {finding.code: finding for finding in report.findings}
    assert report.ok
    assert {code: each.severity for code, each in found.items()} == dict.fromkeys(said, "note")
    assert all(found[code].message.startswith(text) for code, text in said.items())


def test_a_scale_of_zero_variance_is_what_batch_norm_multiplies_by():
    x, mean, variance = torch.ones(1, 2), torch.zeros(2), torch.tensor([1.0, 0.0])
    assert torch.nn.functional.batch_norm(x, mean, variance)[0, 1].item() == pytest.approx(316, abs=1)


def test_the_scale_of_a_quantised_weight_is_no_logits():
    beside = {
        "w.weight": torch.zeros(5, 5, dtype=torch.int8),
        "w.weight_scale": torch.tensor([1.0, math.nan]),
    }
    (finding,) = nanhunt.check(beside).findings
    assert finding.code == "NH501"


def test_an_adapter_of_zero_is_a_note():
    lora = {
        "q_proj.lora_A.default.weight": torch.randn(4, 8),
        "q_proj.lora_B.default.weight": torch.zeros(8, 4),
    }
    (note,) = nanhunt.check(lora).findings
    assert (note.code, note.severity) == ("NH511", "note")
    assert nanhunt.check(lora).ok


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_fresh_trained_tied_and_pruned_models_are_healthy(optimizer):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(4, 8, 1), torch.nn.BatchNorm1d(8), torch.nn.Flatten(), torch.nn.Linear(16, 8),
        torch.nn.LayerNorm(8), torch.nn.Linear(8, 8, bias=False),
    )  # fmt: skip
    model[5].weight.data[:4] = 0  # pruned
    model.register_parameter("tied", model[5].weight)
    used = optimizer(model.parameters(), lr=1e-3)
    assert nanhunt.check(model).ok
    for _ in range(3):
        used.zero_grad()
        model(torch.randn(3, 4, 2)).square().mean().backward()
        used.step()
        assert not nanhunt.check({"model": model.state_dict(), "optimizer": used.state_dict()}).findings


def test_the_eps_of_the_file_is_the_one_that_divides(tmp_path):
    def told(eps: float, dtype: torch.dtype) -> dict[str, str]:
        weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))]
        optimizer = torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:], "eps": eps}])
        sum(each.sum() for each in weights).backward()
        optimizer.step()
        optimizer.state[weights[1]]["exp_avg_sq"] = torch.zeros(3, dtype=dtype)
        torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
        return codes(tmp_path / "optimizer.pt")

    assert not told(1e-1, torch.float32)
    assert "0.1 / (0 + eps 1e-05) = 1e+04 learning rates" in told(1e-5, torch.float32)["NH506"]
    assert list(told(1e-1, torch.float16)) == []
    assert list(told(1e-9, torch.float16)) == ["NH506", "NH507"]
    assert torch.tensor(4e-8).half() > 0
    assert "NH507" not in told(4e-8, torch.float16)
    assert "0.1 / (0 + eps 0) = inf learning rates" in told(0.0, torch.float32)["NH506"]


@pytest.mark.parametrize("name", ["layer.bias", "norm.bias", "weight"])
def test_a_bias_that_a_cast_flushes_is_a_note(name):
    (finding,) = nanhunt.check(
        {name: torch.full((4,), 1e-10), "other": torch.ones(2)}, dtype="float16"
    ).findings
    assert (finding.code, finding.severity) == ("NH502", "warning" if name == "weight" else "note")
