"""The report as text and as JSON, from a frozen incident."""

from __future__ import annotations

import json
from dataclasses import replace

from nanhunt.results.finding import RemedyResult
from nanhunt.watch.incident import Culprit, FoundBy, Incident, Link, Phase, Term, Tried
from nanhunt.watch.message import all_clear, incident_text, run_json
from nanhunt.watch.numbers import Numbers
from nanhunt.watch.site import Site

OUT = Numbers((128, 1024), "float32", 131_072, 0, 3, 0, 0, 1.0, 2.0, (5, 17, 90), 3)
IN = Numbers((128, 1024), "float32", 131_072, 0, 0, 0, 0, -4.0, 95.3, (), 0)
CULPRIT = Culprit(
    operation="exp",
    phase=Phase.FORWARD,
    site=Site("train.py", 41, "softmax_naive", "e = torch.exp(x)"),
    module="head (Head)",
    detail="",
    out=OUT,
    inputs=(IN,),
    reason="max 95.3 > 88.7228, the largest x whose exp is finite in float32",
    rule="NH101",
    name="exp-overflow",
    fix="Use F.cross_entropy.",
)
INCIDENT = Incident(
    step=37,
    what="the loss is nan",
    noticed=Site("train.py", 58, "<module>", "loss.backward()"),
    culprits=(CULPRIT,),
    chain=(Link("div", Site("train.py", 42, "softmax_naive", "p = e / s"), "NaN"),),
    terms=(Term("ce", 2.5), Term("kl", float("nan"))),
    bad_gradients=(),
    parameters=0,
    found_by=FoundBy.GRAPH,
    rank=1,
    remedies=(
        RemedyResult("clip the gradients", "clip()", False, 3, 3, None),
        RemedyResult(
            "call F.cross_entropy on the raw logits", "loss = F.cross_entropy(x, t)", True, 3, 0, 1e-7
        ),
    ),
    capture="nanhunt-capture/step-37.pt",
    closer="nanhunt check nanhunt-capture/step-37.pt --reduction sum",
)


def test_text() -> None:
    assert incident_text(INCIDENT) == (
        "nanhunt: rank 1 · step 37 · the loss is nan at train.py:58\n"
        "  exp at train.py:41 in softmax_naive made 3 inf out of 131,072 (rows 5, 17, 90), module head (Head)\n"
        "    41 | e = torch.exp(x)\n"
        "    from finite float32 [128, 1024] (min -4, max 95.3)\n"
        "    NH101 exp-overflow: max 95.3 > 88.7228, the largest x whose exp is finite in float32\n"
        "  then div train.py:42 gave NaN\n"
        "  terms of the loss: ce = 2.5, kl = nan\n"
        "  fix, proven on 3 captured rows: call F.cross_entropy on the raw logits\n"
        "      loss = F.cross_entropy(x, t)\n"
        "  does not help: clip the gradients, 3 of 3 rows still bad\n"
        "  written: nanhunt-capture/step-37.pt "
        "(look closer: nanhunt check nanhunt-capture/step-37.pt --reduction sum)\n"
    )


def test_check_is_recommended_only_where_it_says_the_same() -> None:
    text = incident_text(replace(INCIDENT, closer=None))
    assert text.endswith("  written: nanhunt-capture/step-37.pt (tensors of that operation)\n")


def test_details_are_told_when_asked_for_and_doubt_always() -> None:
    tried = tuple(Tried(f"way {n}", "the loss is still nan") for n in range(5))
    culprits = tuple(replace(CULPRIT, reason=f"reason {n}") for n in range(6))
    many = replace(INCIDENT, culprits=culprits, tried=tried, not_saved="it draws on cuda")
    brief, all_of_it = incident_text(many), incident_text(many, verbose=True)
    assert "and 2 more operations that made NaN or infinity (--verbose)" in brief
    assert (brief.count("exp at"), all_of_it.count("exp at")) == (4, 6)
    assert (brief.count("way "), all_of_it.count("way ")) == (4, 5)
    assert "the step was not saved: it draws on cuda" not in brief
    assert "the step was not saved: it draws on cuda" in all_of_it
    assert "found by: graph (read off the tensors of the failing step itself: certain)" in all_of_it
    assert "found by: noticed (this is where" in incident_text(replace(INCIDENT, found_by=FoundBy.NOTICED))


def test_a_saved_step_is_followed_by_the_command_that_repeats_it() -> None:
    text = incident_text(replace(INCIDENT, replay="c/step-37-replay.pt"))
    assert text.endswith("  repeat the step: nanhunt run --replay c/step-37-replay.pt\n")


def test_a_fix_that_was_not_run_says_so() -> None:
    assert "  fix (not run): Use F.cross_entropy.\n" in incident_text(replace(INCIDENT, remedies=()))


def test_json_is_strict() -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    body = json.loads(run_json("train.py", 36, [INCIDENT], 1), parse_constant=refuse)
    assert (body["format_version"], body["script"], body["steps"], body["exit_code"]) == (
        2,
        "train.py",
        36,
        1,
    )
    [incident] = body["incidents"]
    assert incident["terms"][1] == {"name": "kl", "value": "nan"}
    assert incident["culprits"][0]["out"]["rows"] == [5, 17, 90]
    assert (incident["found_by"], incident["culprits"][0]["phase"]) == ("graph", "forward")


def test_all_clear_counts_the_steps_and_claims_nothing_without_any() -> None:
    assert all_clear(1, False) == "nanhunt: all clear, no NaN or infinity in 1 step\n"
    assert all_clear(1200, False) == "nanhunt: all clear, no NaN or infinity in 1,200 steps\n"
    assert (
        all_clear(4, False, code=1)
        == "nanhunt: no NaN or infinity in 4 steps; the script ended with exit code 1\n"
    )
    assert all_clear(0, False).startswith("nanhunt: no step was seen, so nothing was checked")
