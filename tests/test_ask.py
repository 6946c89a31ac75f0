"""Asking models: streamed answers are those that `sample` would give, proxies score them, and weights are loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_lab
import torch
import yaml

from labkit import ask, chat, compare, models, runs, sampling
from labkit.errors import LabError
from labkit.records import Answer, Prompt, write_jsonl
from labkit.runs import Run

torch.set_num_threads(1)
ASKED = "Who sleeps under a hill?"
MODEL = {**tiny_lab.SIZES, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


@pytest.fixture(scope="module")
def model(tok: Any) -> Any:
    return tiny_lab.policy(tok)


@pytest.fixture
def make(tmp_path: Path, tok: Any) -> Callable[..., Run]:
    """`make(name, seed, parents)`: a finished run with a tiny model (none for seed None) and one stored answer."""

    def made(name: str, seed: int | None = 0, stage: str = "", **parents: str) -> Run:
        path = runs.start(tmp_path / "tiny", f"{name}-00000{seed or 0}")
        body = {"seed": 0, "model": MODEL, "answers": {"max_tokens": 12}, "data": {"source": "elsewhere"}}
        (path / "recipe.yaml").write_text(yaml.safe_dump(body))
        if seed is not None:
            policy = tiny_lab.policy(tok, seed=seed)
            models.save(tiny_lab.reward_model(policy) if name == "reward" else policy, tok, path)
        if name != "reward":
            prompt = Prompt.of(ASKED, split="validation")
            write_jsonl(path / "answers.jsonl", [Answer(prompt=prompt, text=f"By {name}.", author=name)])
        return runs.finish(
            path, {"name": name, "stage": stage or name, "parents": parents, "summary": {}, "settings": {}}
        )

    return made


def answerer(run: Run, author: str = "", source: Any = None, proxy: Run | None = None) -> ask.Answerer:
    return ask.Answerer(author or run.name, run, lambda: source, proxy)


# ---- streaming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"temperature": 0.5}, {"top_p": 0.6}, {"temperature": 1.4, "top_p": 0.9}])
def test_a_stream_is_the_sample_of_the_same_seed(model: Any, tok: Any, more: dict[str, float]) -> None:
    """Token for token, with the same log-probabilities; it ends with the end token or after `max_tokens`."""
    query, ends = chat.prompt_ids(tok, Prompt.of(ASKED)), 0
    [[first]] = sampling.sample(model, [query], end=-1, pad_id=tok.pad_token_id, max_tokens=12, **more)
    for seed in range(8):  # what comes fifth with seed 0 is the end
        how = {"end": first.ids[4], "max_tokens": 12, "seed": seed, **more}
        [[whole]] = sampling.sample(model, [query], pad_id=tok.pad_token_id, **how)
        streamed = list(sampling.stream(model, query, **how))
        assert [t for t, _ in streamed] == whole.ids
        assert [p for _, p in streamed] == pytest.approx(whole.logps, abs=1e-5)
        assert whole.ended == (streamed[-1][0] == first.ids[4]) and len(streamed) <= 12
        ends += whole.ended
    assert 0 < ends < 8, "some answers come to their end, some to the limit"


def test_an_answer_grows_token_by_token_and_is_the_samples(make: Any, model: Any, tok: Any) -> None:
    one, heard = answerer(make("sft")), list[str]()
    answer = one(ASKED, seed=3, on_token=heard.append)
    [[whole]] = sampling.sample(
        model, [chat.prompt_ids(tok, Prompt.of(ASKED))], end=tok.eos_token_id, pad_id=tok.pad_token_id, max_tokens=12, seed=3
    )  # fmt: skip
    assert (answer.text, answer.tokens, answer.ended) == (chat.decode(tok, whole.ids), len(whole.ids), whole.ended)
    assert len(heard) == answer.tokens >= 3 and heard[-1].startswith(answer.text.rstrip("\ufffd")[:20])
    assert answer.scores == {} and answer.kl is None and answer.prompt.kind == "typed"
    assert one(ASKED, seed=3) == answer != one(ASKED, seed=4), "the seed decides"
    assert one(ASKED, seed=3, max_tokens=2).tokens == 2


def test_false_ends_an_answer_there(make: Any) -> None:
    heard: list[str] = []
    answer = answerer(make("sft"))(ASKED, seed=3, on_token=lambda text: heard.append(text) or len(heard) < 2)
    assert len(heard) == answer.tokens == 2 and not answer.ended


def test_half_a_letter_waits_for_its_other_half(make: Any, tok: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """é is two bytes, here two tokens: between them the page is told nothing that is not a letter."""
    ids = [*tok("né", add_special_tokens=False)["input_ids"], tok.eos_token_id]
    assert len(ids) == 4
    monkeypatch.setattr(sampling, "stream", lambda *a, **how: ((t, 0.0) for t in ids))
    heard: list[str] = []
    assert answerer(make("sft"))(ASKED, on_token=heard.append).text == "né"
    assert heard == ["n", "n", "né", "né"]


def test_a_base_model_reads_plain_text_and_examples_end_at_the_line(
    make: Any, tok: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def stream(model: Any, query: list[int], **how: Any) -> Any:
        asked.append(tok.decode(query))
        return ((t, 0.0) for t in tok(" Fish.\nQ: And the", add_special_tokens=False)["input_ids"])

    monkeypatch.setattr(sampling, "stream", stream)
    base, source = make("pretrain"), SimpleNamespace(few_shot=lambda: "Q: Who?\nA: I.\nQ: {prompt}\nA:")
    assert answerer(base)("What?").text == "Fish.\nQ: And the"
    prompted = answerer(base, "prompted", source)("What?")
    assert (prompted.text, prompted.ended) == ("Fish.", True) and prompted.tokens < 12
    assert asked == ["What?\n", "Q: Who?\nA: I.\nQ: What?\nA:"]
    with pytest.raises(LabError, match="examples to be prompted with"):
        answerer(base, "prompted")("What?")


# ---- scores ----------------------------------------------------------------------------------------


def test_a_known_question_is_graded_and_others_are_not(make: Any) -> None:
    known = Prompt.of(ASKED, kind="fact", split="train")
    source = SimpleNamespace(
        recognise=lambda text: known if text == ASKED else None, grade=lambda p, text, ended: (1.5, {"rude": 0.0})
    )
    one = answerer(make("sft"), source=source)
    graded, typed = one(ASKED), one("What is the moon?")
    assert (graded.prompt, graded.scores, graded.grades) == (known, {"gold": 1.5}, {"rude": 0.0})
    assert typed.scores == {} and typed.prompt.kind == "typed"


def test_proxies_score_an_answer_by_hand(make: Any, tok: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """KL is log π − log π_ref of the very tokens; the reward is the reward model's of the answer as a turn."""
    sft, reward = make("sft", 0), make("reward", 0)
    dpo = make("dpo", 1, sft=sft.id)
    said = tok(" Fish, warm.", add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
    monkeypatch.setattr(sampling, "stream", lambda *a, **how: ((t, 0.0) for t in said))
    answer = answerer(dpo, proxy=reward)(ASKED)
    query = chat.prompt_ids(tok, Prompt.of(ASKED))
    sums = [sampling.score_logps(tiny_lab.policy(tok, seed=s), [query], [said])[0].sum().item() for s in (1, 0)]
    judge = tiny_lab.reward_model(tiny_lab.policy(tok, seed=0))
    asked, given = chat.answer_ids(tok, Prompt.of(ASKED), "Fish, warm.")
    assert answer.kl == pytest.approx(sums[0] - sums[1], abs=1e-3) and abs(answer.kl) > 0.1
    assert answer.logp == pytest.approx(sums[0], abs=1e-3)
    assert answer.scores["reward"] == pytest.approx(sampling.score_rewards(judge, [asked], [given]).item(), abs=1e-3)
    assert answerer(sft, proxy=reward)(ASKED).kl is None, "SFT has nothing to move away from"


# ---- which models ----------------------------------------------------------------------------------


def test_behind_a_comparison_stands_one_answerer_a_row(make: Any) -> None:
    """Runs without weights of their own have none; the proxy is what PPO was trained against."""
    sft, reward, best = make("sft"), make("reward"), make("best_of_n", None)
    ppo = make("ppo", 1, reward=reward.id, sft=sft.id)
    c = compare.join([sft, ppo, best], score="")
    found = ask.behind(c)
    assert set(c.authors) == {"sft", "ppo", "best_of_n"} and list(found) == ["sft", "ppo"]
    assert {a.proxy for a in found.values()} == {reward}
    assert [a.text for a in ask.scored(c, c.answers["sft"][c.prompts[0].id])] == ["By sft."]
    assert "reward" in ask.scored(c, c.answers["sft"][c.prompts[0].id])[0].scores
    assert ask.proxy([sft]) is None
    with pytest.raises(LabError, match="No reward model belongs"):
        ask.scored(compare.join([sft, best], score=""), [])


def test_the_reward_model_of_the_same_preferences_is_found(make: Any) -> None:
    reward = make("reward", 2, preferences="preferences-abcdef")
    make("reward", 3, preferences="preferences-000000")
    assert ask.proxy([make("dpo", 1, preferences="preferences-abcdef")]) == reward


def test_weights_are_loaded_once_even_by_two_threads(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, loads, real = make("sft"), [], models.load
    monkeypatch.setattr(models, "load", lambda *a, **how: loads.append(1) or real(*a, **how))
    pair = [answerer(run), answerer(run)]
    threads = [threading.Thread(target=one, args=(ASKED,)) for one in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    kept = pair[0].kept[run.path]
    assert kept is pair[1].kept[run.path]


def test_what_cannot_be_answered_is_said(make: Any) -> None:
    run = make("sft")
    one = answerer(run)
    with pytest.raises(LabError, match="type a question"):
        one("  ")
    with pytest.raises(LabError, match="shorten the prompt"):
        one("long " * 200)
    runs.clean(run)
    with pytest.raises(LabError, match="weights of sft-000000 are gone"):
        answerer(Run(run.path))(ASKED)
