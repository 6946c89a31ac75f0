"""KTO: the loss by hand and against TRL's, what the votes become, the paper's weights, and the stage on a small model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_lab
import torch
from trl import KTOTrainer

from labkit import chat, losses, sampling
from labkit.errors import LabError
from labkit.records import Prompt
from labkit.stages import kto

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


def thumb(asked: str, answer: str, good: bool) -> Any:
    return replace(tiny_lab.vote(asked, (answer,), (1 if good else 2,)), mode="thumb", source="person")


# ---- the loss ------------------------------------------------------------------------------------


def test_kto_by_hand() -> None:
    """β = ln 3 and a lead of one nat over z₀: σ is ¾ for a good answer and ¼ for a bad one; λ_D = 2 doubles the former."""
    now, ref, good = torch.tensor([-8.0, -8.0]), torch.tensor([-10.0, -10.0]), torch.tensor([True, False])
    loss = losses.kto(now, ref, good, 1.0, beta=math.log(3), desirable_weight=2.0, undesirable_weight=1.0)
    assert loss.tolist() == pytest.approx([2 * 0.25, 0.75])


def test_kto_at_the_reference_is_half_the_weight() -> None:
    logps, good = torch.randn(20, generator=torch.Generator().manual_seed(0)) * 30, torch.arange(20) % 3 == 0
    for beta in (0.05, 0.3, 5.0):
        loss = losses.kto(logps, logps, good, 0.0, beta=beta, desirable_weight=1.5)
        assert torch.allclose(loss, torch.where(good, 0.75, 0.5))


def test_kto_mirrors_good_and_bad_around_the_reference_point() -> None:
    """What lies d above z₀ and is good costs as much as what lies d below and is bad; the two verdicts add up to λ."""
    d = torch.randn(30, generator=torch.Generator().manual_seed(1))
    yes, no, zero = torch.ones(30, dtype=torch.bool), torch.zeros(30, dtype=torch.bool), torch.zeros(30)
    above = losses.kto(0.7 + d, zero, yes, 0.7, beta=0.3)
    assert torch.allclose(above, losses.kto(0.7 - d, zero, no, 0.7, beta=0.3))
    assert torch.allclose(above + losses.kto(0.7 + d, zero, no, 0.7, beta=0.3), torch.ones(30))


# ---- what the votes become -----------------------------------------------------------------------


def test_thumbs_stand_as_they_are_and_pairs_are_split() -> None:
    """One ranking of two, one thumb up, one down: two good answers and two bad ones. A tie, a skip and validation: none."""
    votes = [
        tiny_lab.vote("Who?", ("a", "b"), (2, 1)), thumb("What?", "c", True), thumb("Why?", "d", False),
        tiny_lab.vote("Who?", ("e", "f"), (1, 1)), tiny_lab.vote("Who?", ("g", "h"), (1, 2), flag="skip"),
        tiny_lab.vote("Who?", ("i", "j"), (1, 2), split="validation"),
    ]  # fmt: skip
    rows = kto.judged(votes, pairs=0, seed=0)
    assert sorted((p.text, a, good) for p, a, good in rows) == [
        ("What?", "c", True), ("Who?", "a", False), ("Who?", "b", True), ("Why?", "d", False),
    ]  # fmt: skip
    many = [tiny_lab.vote(f"Who is {n}?", ("a", "b"), (1, 2)) for n in range(9)] + votes[1:3]
    assert len(kto.judged(many, pairs=4, seed=0)) == 2 * 4 + 2, "the limit counts pairs; thumbs are never left out"


def test_a_share_of_each_kind_is_kept() -> None:
    rows = [(Prompt.of("Who?"), str(n), n % 2 == 0) for n in range(40)]
    kept = kto.thinned(rows, good=0.1, bad=0.5)
    assert [a for _, a, good in kept if good] == ["0", "2"] and sum(not good for *_, good in kept) == 10
    assert kto.thinned(rows, good=1.0, bad=1.0) == rows
    assert sum(good for *_, good in kto.thinned(rows, good=0.001, bad=1.0)) == 1


def test_each_prompt_also_gets_the_answer_of_the_row_before_it(tok: Any) -> None:
    """Parts of two: rows 0 and 1 swap answers, 2 and 3 too; the fifth would be its own neighbour, and is left out."""
    rows = [
        (Prompt.of(asked), good, n % 2 == 0) for n, (asked, good, _) in enumerate((*tiny_lab.PAIRS, tiny_lab.PAIRS[0]))
    ]
    made = kto.dataset(rows, tok, context=96, part=2)
    answers = [chat.answer_ids(tok, p, a)[1] for p, a, _ in rows]
    assert list(made["completion_ids"]) == answers[:4] and list(made["label"]) == [True, False, True, False]
    assert list(made["KL_completion_ids"]) == [answers[1], answers[0], answers[3], answers[2]]
    whole = kto.dataset(rows, tok, context=96, part=32)
    assert list(whole["KL_completion_ids"]) == [answers[4], *answers[:4]]
    with pytest.raises(LabError, match="04_preferences"):
        kto.dataset(rows[:1], tok, context=96, part=32)


def test_weights_lie_where_the_paper_wants_them() -> None:
    """Equation 8: λ_D n_D / (λ_U n_U) in [1, 4/3], whichever kind is rare; what is set stays as it is."""
    cases = [(10, 10), (2, 30), (30, 2), (11, 10), (1, 400)]
    for good, bad in cases:
        for given in ({}, {"desirable_weight": 3.0}, {"undesirable_weight": 0.5}):
            d, u = kto.weights(kto.Settings(**given), [True] * good + [False] * bad)
            assert 1 <= d * good / (u * bad) + 1e-9 and d * good / (u * bad) <= 4 / 3
            assert (d if "desirable_weight" in given else u) == list(given.values())[0] if given else min(d, u) == 1
    assert kto.weights(kto.Settings(), [True] * 2 + [False] * 6) == (3.0, 1.0)
    assert kto.weights(kto.Settings(), [True] * 3) == (1.0, 1.0)


# ---- the trainer, against TRL's ------------------------------------------------------------------


def kto_rows(tok: Any) -> Any:
    judged = [(Prompt.of(asked), text, text == good) for asked, good, bad in tiny_lab.PAIRS for text in (good, bad)][:7]
    return kto.dataset(judged, tok, context=96, part=7)


def test_trls_first_kto_loss_is_half_and_a_moved_policy_has_ours(tok: Any, tmp_path: Path) -> None:
    """At the start r = 0 and z₀ = 0. Then the weights are moved: TRL's own loss, the stage's and the formula on whole rows
    that were scored one by one must agree, unequal weights (4 good, 3 bad) included."""
    job = tiny_lab.job(tmp_path, "kto", {"kto.batch": 7, "kto.beta": 0.3})
    model, rows = tiny_lab.policy(tok), kto_rows(tok)
    start = sampling.twin(model)
    fit = kto.trainer(job, model, tok, rows)
    fit.train()
    job.close()
    first = json.loads((job.folder / "metrics.jsonl").read_text().splitlines()[0])
    mean_weight = (4 * 1.0 + 3 * (4 / 3)) / 7
    assert first["train/loss"] == pytest.approx(mean_weight / 2, abs=1e-5)

    with torch.no_grad():
        for weight in fit.model.parameters():
            weight.mul_(0.8).add_(
                0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
            )  # flatter
    batch = next(iter(fit.get_train_dataloader()))
    theirs = KTOTrainer.compute_loss(fit, fit.model, dict(batch)).item()  # TRL's own, which the stage's must equal
    assert fit.compute_loss(fit.model, dict(batch)).item() == pytest.approx(theirs, rel=1e-4)

    moved = tiny_lab.copied(fit.model)
    score = lambda one, side: torch.stack(  # noqa: E731
        [x.sum() for x in sampling.score_logps(one, list(rows["prompt_ids"]), list(rows[side]))]
    )
    point = (score(moved, "KL_completion_ids") - score(start, "KL_completion_ids")).mean()
    assert point > 0.1, "the reference point must matter here"
    ours = losses.kto(
        score(moved, "completion_ids"), score(start, "completion_ids"), torch.tensor(rows["label"]), point,
        beta=0.3, undesirable_weight=4 / 3,
    )  # fmt: skip
    assert abs(ours.mean().item() - mean_weight / 2) > 0.01
    assert theirs == pytest.approx(ours.mean().item(), rel=1e-4)


def test_a_few_steps_tell_good_from_bad_without_a_pair(tok: Any, tmp_path: Path) -> None:
    """Good and bad answers to *different* prompts, so that nothing is ever compared: the good ones gain on the bad ones."""
    job = tiny_lab.job(tmp_path, "kto", {"kto.batch": 4, "kto.learning_rate": 1e-2, "kto.epochs": 20})
    judged = [
        (Prompt.of(asked), good if n % 2 else bad, bool(n % 2)) for n, (asked, good, bad) in enumerate(tiny_lab.PAIRS)
    ]
    fit = kto.trainer(job, tiny_lab.policy(tok), tok, kto.dataset(judged, tok, context=96, part=4))
    fit.train()
    job.close()
    rows = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] - 0.1
    assert rows[-1]["train/margin"] > 0.5 > rows[0]["train/margin"]
