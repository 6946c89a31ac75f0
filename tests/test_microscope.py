"""The microscope's numbers, held to the functions that training uses; and what a token writes, byte by byte."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_lab
import torch

from labkit import chat, losses, models, pieces, runs, sampling, tokenwise
from labkit.errors import LabError
from labkit.lab import Lab
from labkit.microscope import VALUE, Microscope
from labkit.records import Prompt
from labkit.runs import Run

ASKED, SAID = "What does the heron eat?", "It eats fish – and 😀.\nThanks!"
PPO = {"gamma": 0.9, "lam": 0.8, "temperature": 0.7, "unended_score": -2.0}


def finish(lab: Lab, name: str, model: Any, tok: Any, *, value: Any = None, answers: bool = True) -> Run:
    """The run `name` as the lab plans it, with these weights."""
    plan = lab.plan(name)
    folder = runs.start(lab.folder, plan.id)
    models.save(model, tok, folder)
    if value is not None:
        models.save(value, tok, folder / VALUE.parent)
    (folder / "recipe.yaml").write_text(lab.recipe.dump(), encoding="utf-8")
    if answers:
        (folder / "answers.jsonl").touch()
    facts = {"id": plan.id, "name": name, "stage": name, "finished": "2026-01-01T00:00:00", "settings": PPO}
    facts |= {"parents": {n: p.id for n, p in plan.parents.items()}, "summary": {"beta": 0.3}}
    return runs.finish(folder, {**facts, "model": lab.recipe["model"].model_dump(mode="json")})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A lab whose runs have random weights, and those weights."""
    tok = tiny_lab.tokenizer()
    weights = {"sft": tiny_lab.policy(tok), "ppo": tiny_lab.policy(tok, seed=5)}
    weights |= {"reward": tiny_lab.reward_model(weights["sft"]), "value": tiny_lab.reward_model(weights["sft"], seed=9)}
    weights["reward"].config.reward_shift = weights["value"].config.reward_shift = 0.25
    sizes = {f"model.{key}": value for key, value in tiny_lab.SIZES.items()}
    lab = Lab.open("smoke", sizes, outputs=tmp_path_factory.mktemp("lab"))
    finish(lab, "sft", weights["sft"], tok)
    finish(lab, "reward", weights["reward"], tok, answers=False)
    finish(lab, "ppo", weights["ppo"], tok, value=weights["value"])
    query, ids = chat.answer_ids(tok, Prompt.of(ASKED), SAID)
    return {"lab": lab, "tok": tok, **weights, "query": query, "ids": ids}


@pytest.fixture(scope="module")
def seen(made: dict[str, Any]) -> dict[str, Any]:
    return Microscope(made["lab"]).look(f" {ASKED} ", SAID, "sft", "ppo")


def column(seen: dict[str, Any], key: str) -> list[Any]:
    return [token[key] for token in seen["tokens"]]


def test_log_probabilities_are_those_that_training_uses(made: dict[str, Any], seen: dict[str, Any]) -> None:
    for key, name in (("logp_a", "sft"), ("logp_b", "ppo")):
        [expected] = sampling.score_logps(made[name], [made["query"]], [made["ids"]])
        assert column(seen, key) == pytest.approx(expected.tolist(), abs=1e-4)
        assert seen["totals"][key] == pytest.approx(float(expected.sum()), abs=1e-3)
    differences = [b - a for a, b in zip(column(seen, "logp_a"), column(seen, "logp_b"), strict=True)]
    assert column(seen, "change") == pytest.approx(differences, abs=2e-5)
    assert seen["totals"]["tokens"] == len(made["ids"])
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen


def test_kl_and_entropy_of_two_distributions_worked_by_hand() -> None:
    a = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).double().log()
    b = torch.tensor([[0.25, 0.25, 0.5], [1 / 3, 1 / 3, 1 / 3]]).double().log()
    columns = tokenwise.compared(a, b, [2, 0])
    assert columns["kl"] == pytest.approx([0.25 * math.log(2), 0.0])  # ¼ ln ½ + ¼ ln 1 + ½ ln 2
    assert columns["change"] == pytest.approx([math.log(2), 0.0])
    assert columns["entropy_a"] == pytest.approx([1.5 * math.log(2), math.log(3)])
    assert columns["rank_a"] == [2, 1] and columns["rank_b"] == [1, 1]
    assert columns["top_b"][0][0] == (2, pytest.approx(0.5))
    with pytest.raises(LabError, match="3 tokens, the other 2"):
        tokenwise.compared(a, b[:, :2], [0, 0])


def test_kl_is_never_negative_and_nothing_for_the_same_run(made: dict[str, Any], seen: dict[str, Any]) -> None:
    assert min(column(seen, "kl")) > 0  # two models with different random weights differ everywhere
    same = Microscope(made["lab"]).look(ASKED, SAID, "ppo", "ppo")
    assert column(same, "kl") == column(same, "change") == [0] * len(made["ids"])


def test_alternatives_are_the_likeliest_tokens_and_hold_the_own_one_where_it_is_among_them(
    seen: dict[str, Any],
) -> None:
    found = 0
    for token in seen["tokens"]:
        for side in "ab":
            top, rank = token[f"top_{side}"], token[f"rank_{side}"]
            shares = [p for _, p in top]
            assert len(top) == 5 and sorted(shares, reverse=True) == shares and sum(shares) <= 1 + 1e-4
            own = math.exp(token[f"logp_{side}"])
            if rank <= 5:
                found += 1
                assert top[rank - 1][0] == token["text"] and top[rank - 1][1] == pytest.approx(own, abs=2e-5)
            else:
                assert own <= shares[-1] + 2e-5
    assert found


def test_the_reward_of_a_prefix_is_that_of_the_answer_ended_there(made: dict[str, Any], seen: dict[str, Any]) -> None:
    end, cut = made["tok"].eos_token_id, made["ids"][:4]
    score = lambda ids: float(sampling.score_rewards(made["reward"], [made["query"]], [ids]))  # noqa: E731
    rewards = column(seen, "reward")
    assert rewards[-1] == pytest.approx(score(made["ids"]), abs=1e-4) == seen["totals"]["reward"]
    assert rewards[3] == pytest.approx(score([*cut, end]), abs=1e-4)
    assert rewards[3] != pytest.approx(score(cut), abs=1e-2)  # not what an unended answer would read
    assert rewards[-2] == rewards[-1]  # before the end token it is put there


def test_value_and_advantage_are_ppos_own(made: dict[str, Any], seen: dict[str, Any]) -> None:
    prompts, answers = [made["query"]], [made["ids"]]
    with torch.inference_mode():
        logps, mask = sampling.answer_logps(made["ppo"], prompts, answers, temperature=0.7)
        ref, _ = sampling.answer_logps(made["sft"], prompts, answers, temperature=0.7)
        hidden, _ = sampling.hidden_states(made["value"], prompts, answers)
        values = made["value"].score(hidden)[:, 0][None] - 0.25
        for ended, score in (
            (True, sampling.score_rewards(made["reward"], prompts, answers)),
            (False, torch.tensor([-2.0])),
        ):
            if not ended:  # cut off: no end token, and the price of that
                logps, ref, values, mask = logps[:, :-1], ref[:, :-1], values[:, :-1], mask[:, :-1]
                seen = Microscope(made["lab"]).look(ASKED, SAID, "sft", "ppo", ended=False)
            rewards = losses.token_rewards(score, logps - ref, mask, beta=0.3)
            expected, _ = losses.gae(rewards, values, mask, gamma=0.9, lam=0.8)
            assert column(seen, "value") == pytest.approx(values[0].tolist(), abs=1e-4)
            assert column(seen, "advantage") == pytest.approx(expected[0].tolist(), abs=1e-3)
    last = seen["tokens"][-1]
    assert last["advantage"] == pytest.approx(-2 - 0.3 * float(logps[0, -1] - ref[0, -1]) - last["value"], abs=1e-3)


def test_without_value_network_or_reward_model_a_note_says_so(made: dict[str, Any], tmp_path: Path) -> None:
    lab = Lab(made["lab"].recipe, tmp_path)
    shutil.copytree(made["lab"].folder, lab.folder, dirs_exist_ok=True)
    scope = Microscope(lab)
    shutil.rmtree(lab.find("ppo").path / "value", ignore_errors=True)
    ppo = Run(lab.folder / lab.plan("ppo").id)
    seen = scope.look(ASKED, SAID, "sft", ppo)
    assert "advantage" not in seen["tokens"][0] and f"{ppo.id} did not keep its value network" in seen["notes"][0]
    shutil.rmtree(lab.folder / lab.plan("reward").id)
    seen = Microscope(lab).look(ASKED, SAID, "sft", "sft")
    assert "reward" not in seen["tokens"][0] and seen["totals"]["reward"] is None
    assert seen["notes"] == ["There is no reward by prefix: page 05_reward trains the reward model."]


def test_what_cannot_be_looked_at_is_said_in_a_sentence(made: dict[str, Any], tmp_path: Path) -> None:
    scope = Microscope(made["lab"])
    assert scope.names == ["sft", "ppo"]
    for words, sentence in (
        ((" ", SAID, "sft", "ppo"), "no prompt yet"),
        ((ASKED, "\n", "sft", "ppo"), "no answer to look at yet"),
        ((ASKED, SAID, "sft", "dpo"), "no finished run of dpo: run page 07_dpo first"),
        ((ASKED, SAID, "reward", "ppo"), "no weights that write answers: choose sft and ppo"),
        ((ASKED, SAID, "sft", "dop"), "no run called 'dop'"),
        ((ASKED, "fish " * 100, "sft", "ppo"), r"too long for the model's context of 96: shorten one"),
    ):
        with pytest.raises(LabError, match=sentence):
            scope.look(*words)
    tok = chat.train_tokenizer(["other words altogether"], vocabulary=300, context=96)
    other = finish(Lab(made["lab"].recipe, tmp_path), "sft", tiny_lab.policy(tok), tok)
    with pytest.raises(LabError, match="read text in different tokens"):
        scope.look(ASKED, SAID, "ppo", other)


def test_a_run_writes_the_answer_and_the_same_seed_the_same(made: dict[str, Any]) -> None:
    scope = Microscope(made["lab"])
    first, again, other = (scope.write(ASKED, "sft", seed) for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(LabError, match="nothing to answer|no prompt"):
        scope.write(" ", "sft")


def test_pieces_are_blanks_line_ends_marks_and_bytes_of_split_characters(
    seen: dict[str, Any], made: dict[str, Any]
) -> None:
    texts, whole = column(seen, "text"), column(seen, "whole")
    assert "".join(t for t, w in zip(texts, whole, strict=True) if not w) == " It eats fish  and .\nThanks!<end>"
    assert [t for t, w in zip(texts, whole, strict=True) if w == "–"] == ["⟨E2⟩", "⟨80⟩", "⟨93⟩"]
    assert [t for t, w in zip(texts, whole, strict=True) if w == "😀"] == ["⟨F0⟩", "⟨9F⟩", "⟨98⟩", "⟨80⟩"]
    assert column(seen, "mark") == [False] * (len(texts) - 1) + [True]
    assert pieces.texts(made["tok"], [99_999]) == ["⟨token 99999⟩"]  # an output layer may be wider than the vocabulary
    alone = made["tok"].convert_tokens_to_ids("Ã")  # the first byte of two, and the second never comes
    assert pieces.texts(made["tok"], [alone]) == ["⟨C3⟩"] and pieces.split_characters(made["tok"], [alone]) == [""]


def test_every_byte_has_a_letter_of_its_own() -> None:
    assert sorted(pieces.BYTES.values()) == list(range(256))
    assert [pieces.BYTES[c] for c in "ĠĊA"] == [0x20, 0x0A, 0x41]
