"""What the stages feed their trainers, and that TRL's first logged losses are those of `losses`."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_lab
import torch
from trl import DPOTrainer, SFTTrainer

from labkit import chat, contrast, imitation, losses, models, reading, sampling, stages
from labkit.errors import LabError
from labkit.records import Answer, Prompt
from labkit.stages import dpo, preferences, pretrain, reward

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


@pytest.fixture
def model(tok: Any) -> Any:
    return tiny_lab.policy(tok)


def logged(job: Any) -> list[dict[str, Any]]:
    job.close()
    return [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]


# ---- pretraining ---------------------------------------------------------------------------------


def test_pretraining_rows_pack_the_documents_without_loss(tok: Any) -> None:
    """Rows overlap by one token; joined again they are the documents, each once before any twice, with the end token
    between.
    """
    texts = [f"Number {n} sleeps under the hill." for n in range(20)]
    encoded = [tuple(ids) for ids in tok(texts, add_special_tokens=False)["input_ids"]]
    total = sum(len(e) + 1 for e in encoded)
    rows = pretrain.dataset(texts, tok, length=16, tokens=total, seed=0)
    assert rows.shape == (total // 16, 17)
    assert torch.equal(rows[:-1, -1], rows[1:, 0])
    stream = [rows[0, 0].item(), *rows[:, 1:].flatten().tolist()]
    assert stream[0] == tok.eos_token_id
    documents, current = [], []
    for t in stream[1:]:
        if t == tok.eos_token_id:
            documents.append(tuple(current))
            current = []
        else:
            current.append(t)
    assert len(set(documents)) == len(documents) >= 18 and set(documents) <= set(encoded)
    assert not torch.equal(rows, pretrain.dataset(texts, tok, length=16, tokens=total, seed=1))
    assert pretrain.dataset(texts, tok, length=16, tokens=10 * total, seed=0).numel() == 10 * total // 16 * 17


def test_pretraining_without_any_web_is_refused(tok: Any) -> None:
    with pytest.raises(LabError, match="no web text.*data.web.*pretrain.tokens=0"):
        pretrain.dataset([], tok, length=16, tokens=100, seed=0)


def test_pretraining_lowers_the_loss_from_that_of_a_guess(tok: Any, tmp_path: Path) -> None:
    """Small random weights start near ln V; a few steps on two sentences must bring it well below. Even less text
    trains once.
    """
    job = tiny_lab.job(tmp_path, "pretrain", {"pretrain.learning_rate": 1e-2, "pretrain.batch": 4})
    texts = list(tiny_lab.TEXTS)
    pretrain.train(job, tiny_lab.policy(tok, std=0.02), pretrain.dataset(texts, tok, length=16, tokens=2400, seed=0))
    rows = logged(job)
    assert rows[0]["train/loss"] == pytest.approx(math.log(len(tok)), abs=0.1)
    assert rows[-1]["train/loss"] < rows[0]["train/loss"] - 1
    assert rows[-1]["step"] == rows[-1]["of"] == 37
    short = tiny_lab.job(tmp_path / "short", "pretrain")
    pretrain.train(short, tiny_lab.policy(tok), pretrain.dataset(texts, tok, length=16, tokens=32, seed=0))
    assert [r["step"] for r in logged(short)] == [1]


def test_threads_share_the_rows_and_add_up_to_the_same_gradient(tok: Any) -> None:
    """Three shares of seven rows give the gradient of the mean loss over all, and the same bytes each time."""
    model, batch = tiny_lab.policy(tok), torch.randint(0, len(tok), (7, 17), generator=torch.manual_seed(0))
    logits = model(input_ids=batch[:, :-1]).logits
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    expected = torch.autograd.grad(whole, list(model.parameters()))
    seen = []
    for threads in (1, 3, 3, 9):
        with ThreadPoolExecutor(threads) as pool:
            loss, gradients = reading.gradients(model, batch, pool, threads)
        assert loss.item() == pytest.approx(whole.item(), abs=1e-5)
        assert all(torch.allclose(g, e, atol=1e-6) for g, e in zip(gradients, expected, strict=True))
        seen.append(gradients)
    assert len(seen) == 4 and all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))


# ---- SFT -----------------------------------------------------------------------------------------


def demonstrations() -> list[Answer]:
    return [Answer(prompt=Prompt.of(asked), text=good, author="a person") for asked, good, _ in tiny_lab.PAIRS]


def test_sft_trains_on_the_answer_and_its_end_token_only(tok: Any) -> None:
    rows = imitation.dataset(demonstrations(), tok, context=96)
    assert len(rows) == 4
    for row, (asked, good, _) in zip(rows, tiny_lab.PAIRS, strict=True):
        trained = [t for t, m in zip(row["input_ids"], row["completion_mask"], strict=True) if m]
        before = [t for t, m in zip(row["input_ids"], row["completion_mask"], strict=True) if not m]
        assert before + trained == row["input_ids"], "the answer stands at the end"
        assert trained[-1] == tok.eos_token_id and tok.decode(trained[:-1]).strip() == good
        assert before == chat.prompt_ids(tok, Prompt.of(asked))


def test_too_long_demonstrations_are_left_out_and_none_left_is_said(tok: Any) -> None:
    long = replace(demonstrations()[0], text="warm " * 90)
    assert len(imitation.dataset([*demonstrations(), long], tok, context=96)) == 4
    with pytest.raises(LabError, match="No demonstration fits"):
        imitation.dataset([long], tok, context=96)


def test_trls_first_sft_loss_is_nll(tok: Any, model: Any, tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "sft", {"sft.batch": 4})
    rows = imitation.dataset(demonstrations(), tok, context=96)
    ids, answers = rows["input_ids"], [sum(m) for m in rows["completion_mask"]]
    pieces = [(r[:-n], r[-n:]) for r, n in zip(ids, answers, strict=True)]
    logps, mask = sampling.answer_logps(model, [p for p, _ in pieces], [a for _, a in pieces])
    expected = losses.nll(logps, mask).item()
    fit = imitation.trainer(job, model, tok, rows)
    batch = next(iter(fit.get_train_dataloader()))
    assert SFTTrainer.compute_loss(fit, fit.model, dict(batch)).item() == pytest.approx(expected, rel=1e-4)  # TRL's own
    assert fit.compute_loss(fit.model, dict(batch)).item() == pytest.approx(expected, rel=1e-4)
    again = imitation.trainer(job, sampling.twin(model), tok, rows)
    again.train()
    assert logged(job)[0]["train/loss"] == pytest.approx(expected, rel=1e-4)


# ---- DPO -----------------------------------------------------------------------------------------


def pair_rows(tok: Any, votes: Any, **more: Any) -> Any:
    pairs = dpo.dataset(votes, **{"limit": 0, "shuffle_labels": False, "seed": 0, **more})
    return contrast.dataset(pairs, tok, context=96)


def test_dpo_rows_are_the_training_pairs(tok: Any) -> None:
    """A ranking of three with a tie gives two pairs; validation votes and skips give none; both answers end."""
    votes = [
        tiny_lab.vote("Who?", ("a", "b", "c"), (1, 2, 2)),
        tiny_lab.vote("Who?", ("d", "e"), (1, 2), split="validation"),
        tiny_lab.vote("Who?", ("f", "g"), (1, 2), flag="skip"),
    ]
    rows = pair_rows(tok, votes)
    texts = {tuple(chat.decode(tok, row[c]) for c in ("chosen_ids", "rejected_ids")) for row in rows}
    assert texts == {("a", "b"), ("a", "c")} and len(rows) == 2
    assert all(row[c][-1] == tok.eos_token_id for row in rows for c in ("chosen_ids", "rejected_ids"))
    assert len(pair_rows(tok, votes, limit=1)) == 1


def test_shuffled_labels_swap_about_half(tok: Any) -> None:
    """400 coins: 200 ± 10 are swapped, so 150 to 250 is five standard deviations either way. Without the control
    none is.
    """
    votes = [tiny_lab.vote(f"Who is {n}?", ("good", "bad"), (1, 2)) for n in range(400)]
    swapped = sum(chat.decode(tok, r) == "good" for r in pair_rows(tok, votes, shuffle_labels=True)["rejected_ids"])
    assert 150 < swapped < 250
    assert not any(chat.decode(tok, r) == "good" for r in pair_rows(tok, votes)["rejected_ids"])


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_trls_first_dpo_loss_is_ln_2_and_a_moved_policy_has_ours(
    tok: Any, model: Any, tmp_path: Path, alpha: float
) -> None:
    """At the start policy = reference. Then the weights are moved and TRL's loss is asked again: it must be
    `losses.dpo`, and α · `losses.nll` of the chosen answers where they are imitated as well.
    """
    job = tiny_lab.job(tmp_path, "dpo", {"dpo.batch": 4, "dpo.beta": 0.3})
    rows, start = pair_rows(tok, tiny_lab.pair_votes()), sampling.twin(model)
    fit = contrast.trainer(job, model, tok, rows, sft_weight=alpha)
    fit.train()
    first = logged(job)[0]
    assert first["train/dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert (first["train/loss"] > math.log(2) + 1) if alpha else first["train/loss"] == first["train/dpo_loss"]
    assert first["train/margin"] == pytest.approx(0, abs=1e-5)

    with torch.no_grad():
        for weight in fit.model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)))
    batch = next(iter(fit.get_train_dataloader()))
    theirs = DPOTrainer.compute_loss(fit, fit.model, dict(batch)).item()  # TRL's own, which the stage's must equal
    assert fit.compute_loss(fit.model, dict(batch)).item() == pytest.approx(theirs, rel=1e-4)
    summed = {}
    for side in ("chosen_ids", "rejected_ids"):
        for name, one in (("policy", tiny_lab.copied(fit.model)), ("reference", start)):
            summed[name, side] = torch.stack(
                [x.sum() for x in sampling.score_logps(one, rows["prompt_ids"], rows[side])]
            )
    ours = losses.dpo(
        summed["policy", "chosen_ids"], summed["policy", "rejected_ids"],
        summed["reference", "chosen_ids"], summed["reference", "rejected_ids"], beta=0.3,
    )  # fmt: skip
    imitated = sampling.score_logps(tiny_lab.copied(fit.model), rows["prompt_ids"], rows["chosen_ids"])
    total = ours.mean().item() - alpha * torch.cat(imitated).mean().item()
    assert abs(ours.mean().item() - math.log(2)) > 0.02
    assert theirs == pytest.approx(total, rel=1e-4)


# ---- reward model --------------------------------------------------------------------------------


def test_with_pairs_our_reward_loss_is_trls(tok: Any, model: Any, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    judge, rows = tiny_lab.reward_model(model), pair_rows(tok, tiny_lab.pair_votes())
    ours, accuracy = reward.loss(judge, tok, tiny_lab.pair_votes())
    whole = [{f"{c}_ids": r["prompt_ids"] + r[f"{c}_ids"] for c in ("chosen", "rejected")} for r in rows]
    config = RewardConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, max_steps=1, logging_steps=1, report_to="none", bf16=False,
        use_cpu=True, gradient_checkpointing=False, save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    fit = RewardTrainer(model=judge, args=config, train_dataset=Dataset.from_list(whole), processing_class=tok)
    fit.train()
    assert ours.item() == pytest.approx(fit.state.log_history[0]["loss"], rel=1e-4)
    assert accuracy == fit.state.log_history[0]["accuracy"]


def test_a_rankings_loss_is_the_mean_over_its_pairs(tok: Any, model: Any) -> None:
    """K = 3 without ties has 3 pairs, with a tie for last 2; each ranking weighs the same, whatever its K."""
    judge = tiny_lab.reward_model(model)
    one = tiny_lab.vote("Who?", ("Fish.", "The badger.", "No."), (2, 1, 3))
    tie = tiny_lab.vote("What?", ("Tar.", "A bucket.", "Warm."), (2, 1, 2))
    score = lambda v: [  # noqa: E731
        sampling.score_rewards(judge, *([x] for x in chat.answer_ids(tok, v.prompt, t)))[0].item() for t in v.answers
    ]
    cost = lambda better, worse: math.log1p(math.exp(worse - better))  # noqa: E731
    (a, b, c), (d, e, f) = score(one), score(tie)
    first, second = (cost(b, a) + cost(b, c) + cost(a, c)) / 3, (cost(e, d) + cost(e, f)) / 2
    value, accuracy = reward.loss(judge, tok, [one, tie])
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-4)
    assert accuracy == pytest.approx(np.mean([b > a, b > c, a > c, e > d, e > f]))


def test_the_halves_are_disjoint_and_cover(tok: Any) -> None:
    """By prompt, not by vote: two votes on one prompt are in one half. Only training votes with a preference are
    used.
    """
    votes = [tiny_lab.vote(f"Who is {n}?", ("a", "b"), (1, 2), id=f"{n}-{k}") for n in range(200) for k in range(2)]
    votes += [tiny_lab.vote("tie?", ("a", "b"), (1, 1)), tiny_lab.vote("held out?", ("a", "b"), (1, 2), split="test")]
    found = {h: {v.id for v in reward.dataset(votes, half=h, limit=0)} for h in ("all", "first", "second")}
    assert len(found["all"]) == 400
    assert found["first"] | found["second"] == found["all"] and not found["first"] & found["second"]
    assert 120 < len(found["first"]) < 280
    asked = {h: {i.split("-")[0] for i in ids} for h, ids in found.items()}
    assert not asked["first"] & asked["second"]
    assert len(reward.dataset(votes, half="all", limit=30)) == 30


def test_normalised_scores_of_demonstrations_have_mean_0_and_spread_1_after_reloading(
    tok: Any, model: Any, tmp_path: Path
) -> None:
    job, judge = tiny_lab.job(tmp_path, "reward"), tiny_lab.reward_model(model)
    shown = [Answer(prompt=Prompt.of(f"Who is {n}?"), text=f"The {n * n} badger.", author="p") for n in range(50)]
    job.lab.__dict__["source"] = SimpleNamespace(demonstrations=lambda: shown)
    encoded = [chat.answer_ids(tok, d.prompt, d.text) for d in shown]
    before = sampling.score_rewards(judge, [q for q, _ in encoded], [a for _, a in encoded])
    reward.normalise(job, judge, tok)
    models.save(judge, tok, tmp_path)
    again = models.load_reward(tmp_path / "model", device="cpu")
    after = sampling.score_rewards(again, [q for q, _ in encoded], [a for _, a in encoded])
    assert after.mean().item() == pytest.approx(0, abs=1e-4)
    assert after.std().item() == pytest.approx(1, abs=1e-4)
    assert torch.allclose(after, (before - before.mean()) / before.std(), atol=1e-4)
    assert again.config.reward_scale == pytest.approx(before.std().item(), rel=1e-4)


def test_measuring_a_judge_that_knows_and_one_that_counts_words(tok: Any, model: Any, monkeypatch: Any) -> None:
    """Ten pairs whose better answer is the shorter one: the judge is right in all, the rule in none, a tie counts
    half.
    """
    pairs = [
        tiny_lab.vote(f"Who is {n}?", ("Fish.", "It is a long and quiet hill."), (1, 2)).pairs()[0] for n in range(10)
    ]
    judge = tiny_lab.reward_model(model)
    judge.config.reward_scale = 2.0
    monkeypatch.setattr(sampling, "score_rewards", lambda m, p, a, **k: torch.tensor([-len(x) / 10 for x in a]))
    found = reward.measure(judge, tok, pairs, seed=0, samples=100)
    assert (found["reward_accuracy"], found["longer_wins_accuracy"], found["difference"]) == (1.0, 0.0, 1.0)
    gap = (
        len(chat.answer_ids(tok, pairs[0].prompt, pairs[0].rejected)[1])
        - len(chat.answer_ids(tok, pairs[0].prompt, "Fish.")[1])
    ) / 10
    for row in found["calibration"]:
        assert row["confidence"] == pytest.approx(1 / (1 + math.exp(-2 * gap)), abs=1e-3) and row["accuracy"] == 1.0
    monkeypatch.setattr(sampling, "score_rewards", lambda m, p, a, **k: torch.zeros(len(a)))
    assert reward.measure(judge, tok, pairs, seed=0, samples=100)["reward_accuracy"] == 0.5


# ---- preferences and controls --------------------------------------------------------------------


def test_agreement_counts_pairs_that_two_people_ranked() -> None:
    """Of the three pairs of (a, b, c) the second person turns one around: two thirds agree. A tie is not counted."""
    first = tiny_lab.vote("Who?", ("a", "b", "c"), (1, 2, 3), id="1")
    second = tiny_lab.vote("Who?", ("a", "b", "c"), (1, 3, 2), id="2")
    assert preferences.agreement([first, second]) == {"pairs_ranked_twice": 3, "agreement": 0.6667}
    tied = tiny_lab.vote("Who?", ("a", "b", "c"), (1, 2, 2), id="3")
    assert preferences.agreement([first, tied]) == {"pairs_ranked_twice": 2, "agreement": 1.0}


def test_controls_change_one_thing() -> None:
    """`dpo_shuffled` flips the coin, `judge` takes the other half; all else is as it was."""
    seen = 0
    for name, node in stages.GRAPH.items():
        own = stages.module(node.stage).Settings()
        changed = {k for k, v in stages.settings(node, own).model_dump().items() if v != own.model_dump()[k]}
        assert changed == set(node.change), name
        seen += bool(node.change)
    assert seen == 17
