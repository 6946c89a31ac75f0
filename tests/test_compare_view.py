"""The comparing view without a browser: differences, filters, questions in a thread, votes; and that models stay text."""

from __future__ import annotations

import html
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic

from labkit import arena, compare
from labkit.compare import Comparison
from labkit.errors import LabError
from labkit.feedback.store import VoteStore
from labkit.records import Answer, Prompt
from widgets.asking import Question, manner
from widgets.compare import CompareView
from widgets.differences import marked, segments
from widgets.stored import Stored, facts, rewarded

EVIL = "<img src=x onerror=alert(1)>"
GOLD = {"sft": [1.0, 0.0, 0.0, 2.0], "ppo": [0.5, 2.0, 0.0, 1.0], "dpo": [3.0, 0.0, 1.0, 1.5]}
REWARD = {"sft": [0.0, 0.0, 0.0, 0.0], "ppo": [1.0, 1.0, 1.0, -1.0], "dpo": [1.0, 1.0, 1.0, 1.0]}


def comparison(*, rewarded: bool = True, runs: Any = None) -> Comparison:
    """Four prompts, two answers a model, of the scores above; both answers of a model score alike."""
    prompts = tuple(
        Prompt.of(f"Question {i}?", kind="fact" if i % 2 else "story", split="validation") for i in range(4)
    )
    answers = {
        author: {
            p.id: tuple(
                Answer(prompt=p, text=f"{author} says {i} {n}", author=author, n=n, tokens=4,
                       scores={"gold": GOLD[author][i], **({"reward": REWARD[author][i]} if rewarded else {})})
                for n in range(2)
            )
            for i, p in enumerate(prompts)
        }
        for author in GOLD
    }  # fmt: skip
    return Comparison(
        split="validation",
        score="gold",
        reference="sft",
        prompts=prompts,
        answers=answers,
        runs=runs or {},
        samples=100,
    )


def listening(view: CompareView) -> list[dict[str, Any]]:
    """What the view says to its page, in order."""
    heard: list[dict[str, Any]] = []
    view.say = lambda kind, **content: heard.append(json.loads(json.dumps({"kind": kind, **content})))  # type: ignore
    return heard


def writer(said: str, gate: threading.Event | None = None) -> Callable[..., Answer]:
    """A model that writes word by word."""

    def answer(text: str, *, on_token: Callable[[str], Any], **how: Any) -> Answer:
        words, told = said.split(" "), ""
        for i in range(len(words)):
            told = " ".join(words[: i + 1])
            if on_token(told) is False:
                break
            if gate:
                gate.wait(5)
        return Answer(prompt=Prompt.of(text, kind="typed"), text=told, author="x", tokens=i + 1, ended=told == said)

    return answer


# ---- differences -----------------------------------------------------------------------------------


def test_differences_by_hand() -> None:
    parts = segments("Fill a tub with warm water.", "Welcome! Fill a tub with hot water, then.")
    assert parts == [
        ["new", "Welcome! "], ["same", "Fill a tub with "], ["gone", "warm "], ["new", "hot "], ["same", "water"],
        ["new", ", then"], ["same", "."],
    ]  # fmt: skip
    assert marked(parts).text == "{+Welcome!+} Fill a tub with {+hot+} water{+, then+}."
    assert "[-warm-] {+hot+}" in marked(parts, gone=True).text
    assert segments("a  b", "a b") == [["same", "a b"]], "blanks are no difference"
    for was, now in [("", "x y"), ("x y", ""), (EVIL, f"{EVIL} é\n\n日本"), ("don't", "do n't")]:
        assert "".join(t for op, t in segments(was, now) if op != "gone") == now


def test_marked_words_are_escaped() -> None:
    for parts in ([["new", EVIL]], [["same", EVIL]], [["gone", EVIL]]):
        assert EVIL not in marked(parts, gone=True).html and html.escape(EVIL) in marked(parts, gone=True).html


# ---- stored answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ({}, [0, 1, 2, 3]),
        ({"kind": "fact"}, [1, 3]),
        ({"subject": "dpo", "who": "won"}, [0, 2]),  # 3 > 1 and 1 > 0
        ({"subject": "dpo", "who": "lost"}, [3]),  # 1.5 < 2
        ({"subject": "dpo", "who": "tied"}, [1]),
        ({"subject": "ppo", "who": "hacked"}, [0]),  # the reward rose, gold fell; at 3 both fell
        ({"subject": "ppo", "order": "gain"}, [1, 2, 0, 3]),  # +2, 0, −.5, −1
        ({"subject": "ppo", "order": "loss"}, [3, 0, 2, 1]),
        ({"subject": "dpo", "order": "change"}, [0, 2, 3, 1]),  # 2, 1, −.5, 0
        ({"text": "PPO says 2"}, [2]),
        ({"text": "question 3", "kind": "fact", "subject": "dpo", "who": "lost"}, [3]),
        ({"who": "nonsense", "order": "sideways"}, [0, 1, 2, 3]),
    ],
)
def test_filters_by_hand(values: dict[str, str], places: list[int]) -> None:
    stored = Stored(comparison(), ["sft", "ppo", "dpo"], "sft")
    stored.refilter(values)
    assert stored.found() == places
    assert (stored.page()["count"], stored.page()["of"]) == (len(places), 4)


def test_another_reference_turns_wins_round() -> None:
    stored = Stored(comparison(), ["sft", "dpo"], "dpo")
    stored.refilter({"who": "won"})
    assert stored.subject == "sft" and stored.found() == [3]
    assert [c["change"] for c in stored.item(3)["columns"]] == ["+0.50 gold", ""]


def test_what_nobody_scored_cannot_be_asked_for() -> None:
    bare = Stored(comparison(rewarded=False), ["sft", "ppo"], "sft")
    bare.refilter({"who": "hacked"})
    assert not bare.rewarded and bare.page()["filter"]["who"] == "" and len(bare.found()) == 4
    assert len(bare.unrewarded()) == 16, "two models, four prompts, two answers"
    unjudged = Stored(replace(comparison(), score=""), ["sft", "ppo"], "sft")
    unjudged.refilter({"who": "won", "order": "gain"})
    assert unjudged.found() == [0, 1, 2, 3]


def test_implicit_reward_is_beta_times_kl(tmp_path: Path) -> None:
    """0.3 × 2.5 = +.75, for runs that train on such a reward; KL of exactly 0 is not worth a word."""
    run = synthetic.run(tmp_path, "dpo", n=2)
    run.__dict__["manifest"] = {**run.manifest, "settings": {"beta": 0.3}}
    answer = Answer(prompt=Prompt.of("?"), text="", author="dpo", kl=2.5, tokens=3, ended=False, scores={"gold": -1.0})
    told = {label: value for label, value, _ in facts(answer, run)}
    assert told == {"gold": "−1.00", "implicit": "+0.75", "KL": "2.5", "tokens": "3", "cut off": ""}
    assert [label for label, _, _ in facts(replace(answer, kl=0.0, ended=True))] == ["gold", "tokens"]


def test_the_test_split_is_never_shown(tmp_path: Path) -> None:
    runs = synthetic.ladder(tmp_path, only=("sft", "dpo"))
    with pytest.raises(LabError, match="report alone"):
        CompareView(compare.join(runs.values(), split="test"))
    view = CompareView()
    heard = listening(view)
    view.follow(runs.values())
    assert view.c.split == "validation" and {p.split for p in view.c.prompts} == {"validation"}
    assert "test-0" not in json.dumps(heard) and heard[-1]["browse"]["of"] == 70


# ---- the view --------------------------------------------------------------------------------------


def test_leafing_and_filtering_by_messages() -> None:
    view = CompareView(comparison())
    heard = listening(view)
    view.hear({"kind": "ready"})
    first = heard[-1]
    assert first["kind"] == "snapshot" and first["shown"] == ["sft", "ppo", "dpo"] and first["mode"] == "browse"
    assert [c["cards"][0]["parts"] for c in first["browse"]["item"]["columns"]][0] == [["same", "sft says 0 0"]]
    view.hear({"kind": "filter", "values": {"subject": "dpo", "order": "change"}})
    view.hear({"kind": "go", "at": 99})
    assert heard[-1]["at"] == 3 and heard[-1]["item"]["turns"][0]["content"] == "Question 1?"
    view.hear({"kind": "shown", "names": ["dpo", "sft"]})
    assert heard[-1]["shown"] == ["sft", "dpo"] and heard[-1]["browse"]["filter"]["order"] == "change"
    view.hear({"kind": "reference", "name": "dpo"})
    assert heard[-1]["browse"]["against"] == "dpo"
    view.hear({"kind": "shown", "names": ["sft"]})
    assert heard[-1] == {"kind": "error", "text": "Two to 6 models can stand side by side.", "about": None}
    assert view.shown == ["sft", "dpo"]


def test_a_page_is_told_nothing_that_json_cannot_hold(tmp_path: Path) -> None:
    """A full ladder, and none at all: no NaN, no records."""
    runs = synthetic.ladder(tmp_path)
    for c in (compare.join(runs.values(), samples=100), compare.join(runs.values(), score=""), None):
        view = CompareView(c) if c else CompareView(models={"mine": writer("x")})
        json.dumps(view.snapshot(), allow_nan=False)
        assert len(view.shown) == (6 if c else 1)


def test_scoring_all_by_the_reward_model_opens_the_filter() -> None:
    asked: list[Answer] = []

    def scored(c: Comparison, answers: Any) -> list[Answer]:
        asked.extend(answers)
        return [replace(a, scores={**a.scores, "reward": REWARD[a.author][int(a.text.split()[2])]}) for a in answers]

    view = CompareView(comparison(rewarded=False), scored=scored)
    heard = listening(view)
    view.hear({"kind": "score"})
    assert view.scoring is None or view.scoring.join(5) is None
    assert len(asked) == 24 and heard[-1]["rewarded"] and not heard[-1]["scoring"]
    view.hear({"kind": "filter", "values": {"subject": "ppo", "who": "hacked"}})
    assert heard[-1]["count"] == 1

    twins = replace(
        comparison(rewarded=False), answers={n: comparison(rewarded=False).answers["dpo"] for n in ("sft", "dpo-a")}
    )
    twice = Stored(twins, ["sft", "dpo-a"], "sft")  # two rows of one author
    waiting = twice.unrewarded()
    marked_up = [replace(a, scores={"reward": float(i)}) for i, (_, a) in enumerate(waiting)]
    found = rewarded(twins, waiting, marked_up)
    assert [a.scores["reward"] for group in found["dpo-a"].values() for a in group] == [8, 9, 10, 11, 12, 13, 14, 15]

    def broken(c: Comparison, answers: Any) -> list[Answer]:
        raise LabError("No reward model belongs to these runs.")

    view = CompareView(comparison(rewarded=False), scored=broken)
    heard = listening(view)
    view.hear({"kind": "score"})
    assert view.scoring is None or view.scoring.join(5) is None
    assert heard[-1]["text"].startswith("No reward model") and not heard[-2]["scoring"]


# ---- asking ----------------------------------------------------------------------------------------


def test_a_question_is_answered_in_turn_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page puts together from the messages is what was written, and the last message has scores and differences."""
    monkeypatch.setattr("widgets.asking.PACE", 0.0)
    models = {
        "sft": writer("Fill a tub with water."),
        "ppo": lambda text, **how: 1 / 0,
        "dpo": writer("Fill a tub with soap."),
    }
    view = CompareView(comparison(), models=models)
    heard = listening(view)
    view.hear({"kind": "ask", "text": "How?", "how": {"temperature": "0.5", "seed": 7.0, "top_p": "much"}})
    assert view.live
    view.live.thread.join(5)
    texts, states = dict.fromkeys(models, ""), {n: list[str]() for n in models}
    for m in heard:
        if m["kind"] == "column":
            states[m["column"]].append(m["state"])
            texts[m["column"]] = m["text"]
        if m["kind"] == "written":
            texts[m["column"]] += m["add"]
    assert states == {
        "sft": ["loading", "writing", "done"],
        "ppo": ["loading", "failed"],
        "dpo": ["loading", "writing", "done"],
    }
    assert texts == {
        "sft": "Fill a tub with water.",
        "ppo": "ZeroDivisionError: division by zero",
        "dpo": "Fill a tub with soap.",
    }
    assert sum(m["kind"] == "written" for m in heard) >= 8, "token by token"
    last = heard[-1]["live"]
    assert heard[-1]["kind"] == "asked" and not last["busy"] and last["columns"][2]["parts"][-2] == ["new", "soap"]
    assert arena.unseal(last["seal"]) == ["sft", "dpo"], "who did not answer cannot be voted for"
    assert view.how == {"temperature": 0.5, "seed": 7, "top_p": 1.0, "max_tokens": 48}
    view.hear({"kind": "ask", "text": "Again?"})
    view.live.thread.join(5)
    assert [m["state"] for m in heard if m["kind"] == "column" and m["column"] == "sft"][3:] == ["writing", "done"]


def test_stop_ends_after_a_token_and_a_second_question_waits() -> None:
    gate = threading.Event()
    view = CompareView(comparison(), models={"sft": writer("one two three", gate), "dpo": writer("four")})
    heard = listening(view)
    view.hear({"kind": "ask", "text": "How?"})
    assert heard[0]["kind"] == "asked" and heard[0]["live"]["busy"]
    view.hear({"kind": "ask", "text": "And?"})
    assert heard[-1]["text"].startswith("The models are still answering")
    view.hear({"kind": "stop"})
    gate.set()
    assert view.live
    view.live.thread.join(5)
    assert [(c["state"], c["text"]) for c in heard[-1]["live"]["columns"]] == [("stopped", "one two"), ("stopped", "")]
    view.hear({"kind": "ask", "text": "  "})
    assert heard[-1]["text"].startswith("There is nothing to answer")


def test_a_page_that_reloads_while_a_model_writes_misses_and_doubles_nothing() -> None:
    """Before a snapshot all that was written is said, so that what follows it fits both the old page and the new."""
    heard: list[dict[str, Any]] = []
    gate = threading.Event()
    asked = Question(
        "?",
        {"a": writer("one two", gate)},
        {},
        say=lambda kind, **c: heard.append({"kind": kind, **c}),
        done=lambda q: None,
    ).start()
    while not asked.columns()[0]["text"]:
        pass
    seen = asked.columns()[0]["text"]
    gate.set()
    asked.thread.join(5)
    assert seen == "one" and heard[-1]["text"] == "one two"


def test_another_comparison_silences_the_question() -> None:
    gate = threading.Event()
    view = CompareView(comparison(), models={"sft": writer("one two", gate), "dpo": writer("x")})
    heard = listening(view)
    view.hear({"kind": "ask", "text": "How?"})
    old = view.live
    view.compare(comparison())
    before = len(heard)
    gate.set()
    assert old
    old.thread.join(5)
    assert len(heard) == before and view.live is None


def test_sampling_settings_stay_within_their_ranges() -> None:
    now = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 48, "seed": 0}
    given = {"temperature": 99, "top_p": 0, "max_tokens": 3.9, "seed": float("nan"), "other": 1}
    assert manner(given, now) == {"temperature": 2.0, "top_p": 0.05, "max_tokens": 3, "seed": 0}


# ---- votes -----------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> VoteStore:
    return VoteStore(f"sqlite:///{tmp_path / 'votes.sqlite'}")


def sent(view: CompareView, heard: list[dict[str, Any]], choice: Any, number: int = 0) -> dict[str, Any]:
    """The letter that a page makes of the round that it was shown."""
    shown = next(m["round"] for m in reversed(heard) if m.get("round"))
    return {"id": f"letter-{number}", "round": shown["id"], "prompt": shown["record"], "blind": True, "choice": choice,
            "answers": [c["text"] for c in shown["columns"]], "seal": shown["seal"], "seconds": 1.0,
            "time": "2026-01-01T00:00:00Z"}  # fmt: skip


def test_a_blind_round_names_nobody_before_the_vote_is_stored(store: VoteStore, tmp_path: Path) -> None:
    runs = synthetic.ladder(tmp_path, only=("sft", "dpo"))
    view = CompareView(compare.join(runs.values(), samples=100), votes=store, rater="Wren", seed=3)
    heard = listening(view)
    view.hear({"kind": "round"})
    shown = heard[-1]["round"]
    assert shown["ready"] and [c["name"] for c in shown["columns"]] == ["A", "B"] and shown["names"] == []
    for name in ("sft", "dpo", *(r.id for r in runs.values())):
        assert name not in json.dumps({k: v for k, v in shown.items() if k != "seal"})
    letter = sent(view, heard, 1)
    view.hear({"kind": "letters", "letters": [letter, letter]})
    kept, [vote] = heard[-1], store.votes(run="arena")
    assert kept["kind"] == "kept" and kept["ids"] == ["letter-0", "letter-0"] and not kept["refused"]
    told = [n["run"] for n in kept["names"]["letter-0"]]
    assert told == arena.unseal(shown["seal"]) and kept["names"]["letter-0"][0]["facts"][0][0] == "gold"
    assert vote.rater == "Wren" and arena.authors(vote)[vote.ranks.index(1)] == told[1], "the right side won"
    assert [(r["run"], r["told"]) for r in kept["standings"]] == [
        (told[1], "100 % [21, 100]"),
        (told[0], "0 % [0, 79]"),
    ]
    view.hear({"kind": "ready"})
    assert heard[-1]["round"]["names"], "a reload shows what the vote revealed"


def test_letters_survive_the_kernel_and_only_whole_ones_count(store: VoteStore, tmp_path: Path) -> None:
    """A letter is stored by a view that never drew its round; a broken one is refused once and for all; undone in order."""
    first = CompareView(comparison(), votes=store, seed=1)
    heard = listening(first)
    first.hear({"kind": "round"})
    letters = [sent(first, heard, 0, n) for n in range(3)]
    second = CompareView(comparison(), votes=VoteStore(store.address))
    heard = listening(second)
    broken = {**letters[1], "id": "broken", "seal": "?"}
    undo = {"id": "undo-letter-2", "undo": "letter-2"}
    second.hear({"kind": "letters", "letters": [letters[0], broken, letters[2], undo]})
    assert heard[-1]["ids"] == ["letter-0", "letter-2", "undo-letter-2"] and [
        r["id"] for r in heard[-1]["refused"]
    ] == ["broken"]
    assert [v.id for v in store.votes(run="arena")] == ["letter-0"]
    assert first.booth and second.booth and first.booth.outbox == second.booth.outbox
    assert first.booth.outbox != CompareView(votes=VoteStore(f"sqlite:///{tmp_path / 'other.sqlite'}")).booth.outbox  # type: ignore


def test_a_store_that_cannot_be_used_keeps_letters_waiting(store: VoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    view = CompareView(comparison(), votes=store, seed=1)
    heard = listening(view)
    view.hear({"kind": "round"})
    letter = sent(view, heard, 0)

    def locked(**where: str) -> int:
        raise LabError("The vote store cannot be used.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "count", locked)
        view.hear({"kind": "letters", "letters": [letter]})
    assert heard[-1] == {"kind": "error", "text": "The vote store cannot be used.", "about": None}
    view.hear({"kind": "letters", "letters": [letter]})
    assert heard[-1]["ids"] == ["letter-0"]


def test_a_typed_round_is_answered_by_two_models_without_names(store: VoteStore) -> None:
    view = CompareView(
        comparison(), models={n: writer(f"Words of number {i}") for i, n in enumerate(GOLD)}, votes=store, seed=2
    )
    heard = listening(view)
    view.hear({"kind": "round", "text": "Why?"})
    assert view.booth and view.booth.question
    view.booth.question.thread.join(5)
    last = heard[-1]["round"]
    assert heard[-1]["kind"] == "round" and last["ready"] and last["live"] and last["turns"][0]["content"] == "Why?"
    assert not any(n in json.dumps([m for m in heard if m["kind"] in ("column", "written")]) for n in GOLD)
    view.hear({"kind": "letters", "letters": [sent(view, heard, "tie")]})
    [vote] = store.votes(run="arena")
    names = arena.authors(vote)
    assert set(vote.answers) == {f"Words of number {list(GOLD).index(n)}" for n in names} and vote.ranks == (1, 1)


def test_without_a_store_nobody_votes() -> None:
    view = CompareView(comparison())
    heard = listening(view)
    view.hear({"kind": "round"})
    view.hear({"kind": "letters", "letters": [{"id": "x"}]})
    assert [m["kind"] for m in heard] == ["error"] and "votes=lab.votes" in heard[0]["text"]


# ---- where no page listens -------------------------------------------------------------------------


def test_the_static_twin_shows_answers_with_differences_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    c = comparison()
    first = c.best_examples(1)[0]["prompt"].id
    evil = {
        a: {i: tuple(replace(x, text=EVIL if i == first else x.text) for x in g) for i, g in m.items()}
        for a, m in c.answers.items()
    }
    view = CompareView(replace(c, answers=evil))
    seen = view._repr_mimebundle_()
    assert EVIL not in seen["text/html"] and html.escape(EVIL) in seen["text/html"]
    assert "<ins" in seen["text/html"] and "{+dpo+}" in seen["text/plain"] and "labkit lab" in seen["text/plain"]
    assert "widget" not in vars(view), "no widget is made that nobody sees"
    assert "labkit lab" in CompareView()._repr_mimebundle_()["text/plain"]


def test_views_open_without_torch_or_ipywidgets() -> None:
    code = "import sys, widgets.compare, widgets.runs; print([m for m in ('torch', 'ipywidgets', 'anywidget') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_deltas_stay_arrays_without_a_judge() -> None:
    stored = Stored(replace(comparison(), score=""), ["sft", "ppo"], "sft")
    assert np.isnan(stored.change("ppo")).all() and len(stored.change("ppo")) == 4
