"""TokenView without a browser: what it tells the front end, how it looks in the background, and its static twin."""

from __future__ import annotations

import html
import json
import threading
from typing import Any

import pytest

from labkit import show
from labkit.errors import LabError
from widgets.tokens import TokenView, layers, sums

EVIL = "<img src=x onerror=alert(1)>"


def token(text: str, a: float, b: float, **more: Any) -> dict[str, Any]:
    numbers = {"logp_a": a, "logp_b": b, "change": b - a, "kl": 0.5, "entropy_a": 1.0, "entropy_b": 1.0}
    tops = {"rank_a": 1, "rank_b": 2, "top_a": [[text, 0.75]], "top_b": [[" tar", 0.5], [text, 0.25]]}
    return {"text": text, "whole": "", "mark": False, **numbers, **tops, **more}


def microscope(text: str = "", answer: str = "", a: str = "sft", b: str = "dpo") -> dict[str, Any]:
    """Six tokens as the microscope would give them; the second grows by 2 nats, the last but one falls by 1."""
    tokens = [
        token(" Take", -1.0, -1.0),
        token(f" {EVIL}", -3.0, -1.0),
        token("\n", -1.0, -1.25),
        token("é", -0.5, -0.125),
    ]
    tokens += [token(".", -0.25, -1.25), token("<end>", -0.5, -0.5, mark=True)]
    label = {name: {"name": name, "id": f"{name}-0a1b2c", "label": name.upper()} for name in (a, b)}
    total = {"tokens": 6, "logp_a": -6.25, "logp_b": -5.125, "change": 1.125, "kl": 3.0, "reward": None}
    return {"prompt": text or f"Mend {EVIL}?", "answer": answer or f"Take {EVIL}\né.", "a": label[a], "b": label[b],
            "tokens": tokens, "totals": total, "notes": []}  # fmt: skip


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the view told the front end."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(TokenView, "say", lambda self, kind, **content: told.append({"kind": kind, **content}))
    return told


def test_what_was_seen_comes_as_plain_json_with_its_layers(heard: list[dict[str, Any]]) -> None:
    view = TokenView(microscope())
    view.hear({"kind": "ready"})
    [snapshot] = heard
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    assert snapshot["seen"] == microscope() and not snapshot["looks"] and not snapshot["writes"]
    assert [layer["key"] for layer in snapshot["layers"]] == ["change", "kl", "logp_a", "logp_b"]
    view.hear({"kind": "look", "text": "x", "answer": "y", "a": "sft", "b": "dpo"})  # nothing to look with
    assert len(heard) == 1


def test_layers_are_those_that_the_tokens_have_numbers_for() -> None:
    seen = microscope()
    for each in seen["tokens"]:
        each |= {"reward": 1.0, "value": -1.0}
    assert [layer["key"] for layer in layers(seen)] == ["change", "kl", "logp_a", "logp_b", "value", "reward"]
    assert sums(seen) == "6 tokens · log π SFT −6.25, DPO −5.12: +1.12 nats · KL along the answer 3.00 nats"
    assert sums({**seen, "totals": {**seen["totals"], "reward": -0.001}}).endswith(" · reward 0.00")


def test_a_look_runs_in_the_background_once_at_a_time(heard: list[dict[str, Any]]) -> None:
    going, asked = threading.Event(), []

    def look(*words: str) -> dict[str, Any]:
        asked.append(words)
        assert going.wait(5)
        return microscope(*words)

    view = TokenView(look, models=["sft", "dpo"])
    wanted = {"kind": "look", "text": "Who?", "answer": "The heron.", "a": "dpo", "b": "sft"}
    thread = view.look(wanted)
    view.hear(wanted)  # a second press while it looks
    view.hear({"kind": "ready"})  # a reload while it looks
    assert thread and heard[-1]["busy"] == "looking …" and heard[-1]["seen"] is None
    going.set()
    thread.join(5)
    assert asked == [("Who?", "The heron.", "dpo", "sft")]
    assert [h["kind"] for h in heard] == ["busy", "snapshot", "seen"]
    assert heard[-1]["seen"]["a"]["name"] == "dpo" and heard[-1]["asked"]["answer"] == "The heron."
    view.hear({"kind": "ready"})
    assert (
        heard[-1]["asked"] == {"text": "Who?", "answer": "The heron.", "a": "dpo", "b": "sft"} and not heard[-1]["busy"]
    )


def test_a_model_writes_the_answer_that_is_looked_at(heard: list[dict[str, Any]]) -> None:
    view = TokenView(microscope, write=lambda text, model, seed: f"{model} {seed} on {text}", models=["sft", "dpo"])
    thread = view.look({"text": "Who?", "answer": "old", "a": "sft", "b": "dpo", "by": "dpo", "seed": "7"})
    assert thread
    thread.join(5)
    assert heard[0] == {"kind": "busy", "text": "writing …"}
    assert heard[-1]["asked"]["answer"] == heard[-1]["seen"]["answer"] == "dpo 7 on Who?"
    view.hear({"kind": "look", "text": "Who?", "a": "sft", "b": "dpo", "by": "dpo", "seed": "1e9"})
    assert heard[-1] == {"kind": "error", "text": "A seed is a whole number such as 1, not 1e9.", "about": None}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (LabError("Type a question first."), "Type a question first."),
        (RuntimeError("no room"), "RuntimeError: no room"),
    ],
)
def test_a_look_that_fails_leaves_a_view_that_can_look_again(
    heard: list[dict[str, Any]], error: Exception, told: str
) -> None:
    def look(text: str, *rest: str) -> dict[str, Any]:
        if not text:
            raise error
        return microscope(text)

    view = TokenView(look, models=["sft", "dpo"])
    for text in ("", "Who?"):
        thread = view.look({"text": text, "answer": "x", "a": "sft", "b": "dpo"})
        assert thread
        thread.join(5)
    assert [h["kind"] for h in heard] == ["busy", "error", "busy", "seen"] and heard[1]["text"] == told


def test_only_the_models_of_the_view_are_asked(heard: list[dict[str, Any]]) -> None:
    view = TokenView(microscope, models=["sft", "dpo"])
    view.hear({"kind": "look", "text": "Who?", "answer": "x", "a": "sft", "b": "../../ppo"})
    assert [h["kind"] for h in heard] == ["error"] and "../../ppo is not among the models" in heard[0]["text"]


def test_the_static_twin_colours_by_change_and_lists_what_changed_most() -> None:
    seen = TokenView(microscope()).static()
    assert EVIL not in seen.html and html.escape(EVIL) in seen.html
    spans = [part.partition('"')[0] for part in seen.html.split("background-color:rgba(")[1:]]
    strengths = [float(part.split(",")[3].split(")")[0]) for part in spans]
    assert strengths == [0.0, 0.72, 0.09, 0.14, 0.36, 0.0]  # the strongest change is 2 nats and gets .72
    assert spans[1].startswith("43,123,203") and spans[4].startswith("230,97,1")  # blue up, orange down
    assert 'title="+2.00 nats: SFT −3.00, DPO −1.00; KL 0.500"' in seen.html
    order = [line.split()[0] for line in seen.text.splitlines() if "75 %" in line]
    assert order == ["·<img·src=x·onerror=alert(1)>", ".", "é", "↵", "·Take"]
    assert "+2.00" in seen.text and "−1.00" in seen.text


def test_a_live_view_has_a_twin_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    looked = TokenView(microscope, models=["sft", "dpo"], text="Who?", answer="The heron.")
    assert set(looked._repr_mimebundle_()) == {"text/html", "text/plain"} and "Who?" in looked.static().text
    assert "Nothing has been looked at" in TokenView(microscope, models=["sft"]).static().text

    def fails(*words: str) -> dict[str, Any]:
        raise LabError(f"There is no {EVIL}.")

    said = TokenView(fails, text="Who?", answer="x").static()
    assert said.text == f"There is no {EVIL}." and EVIL not in said.html
    assert isinstance(said, show.Html)
