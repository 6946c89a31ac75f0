"""The view of a training: what it tells the page and when, what it hears, and what it leaves where nobody listens."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from labkit import live, show
from labkit.background import Background
from labkit.errors import LabError
from widgets import training as module
from widgets.training import TrainingView, thinned

EVIL = "<img src=x onerror=alert(1)>"


class Training(Background):
    """A training whose rows and ends the test writes; there is no thread."""

    def __init__(self) -> None:
        self.name, self.title, self.id = "dpo", "DPO", "dpo-123456"
        self.rows, self.samples, self.listeners = [], [], []
        self.state, self.run, self.error = "running", None, None
        self._before = 0
        self.asked: list[str] = []

    def steps(self, *steps: int, of: int = 1000) -> None:
        for step in steps:
            self.take({"step": step, "of": of, "seconds": step / 2, "train/loss": 1 / step})

    def ends(self, state: str, **more: Any) -> None:
        self.state = state
        self.__dict__.update(more)
        self._tell()

    def stop(self) -> None:
        self.asked.append("stop")

    def discard(self) -> None:
        self.asked.append("discard")

    def wait(self) -> Any:
        self.asked.append("wait")
        self.ends("finished", run="the run")
        return self.run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time stands still unless the test moves `clock.now`."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def seen(clock: SimpleNamespace) -> SimpleNamespace:
    """A training, the view of it as if it were drawn in a page, and the messages that the page was sent."""
    training = Training()
    view = TrainingView(training)
    heard: list[dict[str, Any]] = []
    view.__dict__["widget"] = SimpleNamespace(send=lambda content: heard.append(json.loads(json.dumps(content))))
    return SimpleNamespace(training=training, view=view, heard=heard, clock=clock)


def told(seen: SimpleNamespace) -> list[list[int]]:
    """The steps that each message carried."""
    return [[row["step"] for row in message["rows"]] for message in seen.heard]


def test_rows_are_told_at_most_four_times_a_second_and_each_once(seen: Any) -> None:
    seen.training.steps(1, 2, 3)
    assert told(seen) == [[1]], "the first at once, the others wait"
    seen.clock.now += 0.25
    seen.training.steps(4)
    seen.clock.now += 0.24
    seen.training.steps(5)
    seen.clock.now += 0.01
    seen.training.steps(6)
    assert told(seen) == [[1], [2, 3, 4], [5, 6]]
    assert [m["from"] for m in seen.heard] == [0, 1, 4] and [m["told"] for m in seen.heard] == [1, 4, 6]


def test_the_last_step_and_a_new_state_are_told_at_once(seen: Any) -> None:
    seen.training.steps(1, 2)
    seen.training.ends("stopping")
    assert told(seen) == [[1], [2]] and seen.heard[-1]["state"] == "stopping"
    assert "kept" in seen.heard[-1]["said"] and seen.heard[-1]["left"] is None
    seen.training.ends("running")
    seen.training.steps(3, 1000)
    assert told(seen) == [[1], [2], [], [3, 1000]], "the measuring that follows is silent: what waits would wait long"
    assert seen.heard[-1]["said"] == "Trained. Now it is measured."


def test_before_it_is_drawn_nothing_is_told_and_the_snapshot_makes_up_for_it(clock: Any) -> None:
    training = Training()
    view = TrainingView(training)
    training.steps(1, 2)
    assert "widget" not in view.__dict__, "a widget may only be made where it is shown"
    assert [r["step"] for r in view.snapshot()["rows"]] == [1, 2]


def test_a_reload_is_answered_with_everything_and_what_follows_goes_on_from_there(seen: Any) -> None:
    seen.training.samples = [{"step": 1, "answers": [{"prompt": "Who?", "answer": EVIL, "gold": None}]}]
    seen.training.steps(*range(1, 801))
    seen.heard.clear()
    seen.view.hear({"kind": "ready"})
    [snapshot] = seen.heard
    steps = [row["step"] for row in snapshot["rows"]]
    assert len(steps) == 300 and (steps[0], steps[-1]) == (1, 800) and steps == sorted(set(steps))
    assert snapshot["title"] == "DPO" and snapshot["watch"] == list(live.WATCH)
    assert snapshot["samples"] == seen.training.samples
    assert (snapshot["told"], snapshot["shown"], snapshot["state"]) == (800, 1, "running")
    assert snapshot["left"] == 100.0, "200 steps at half a second"
    seen.clock.now += 1
    seen.training.steps(801)
    assert seen.heard[-1]["from"] == 800 and seen.heard[-1]["first"] == 1 and told(seen)[-1] == [801]


def test_two_buttons_and_no_other_word_end_a_training(seen: Any) -> None:
    for kind in ("stop", "discard", "wait", "take", "__class__"):
        seen.view.hear({"kind": kind})
    assert seen.training.asked == ["stop", "discard"]


def test_at_the_end_the_picture_takes_the_place_of_the_view(seen: Any) -> None:
    updates: list[dict[str, str]] = []
    seen.view._handle = SimpleNamespace(update=lambda bundle, raw: updates.append(bundle))
    seen.training.steps(1, 500)
    assert not updates
    seen.training.ends("finished", run="the run")
    assert len(updates) == 1 and set(updates[0]) == {"text/html", "text/plain"}
    assert "DPO · 4 min 10 s · Finished: 500 steps." in updates[0]["text/html"]
    assert '<img alt="curves of dpo: train/loss 0.002"' in updates[0]["text/html"]


def test_the_picture_shows_how_answers_changed_and_runs_nothing_that_a_model_wrote(seen: Any) -> None:
    answers = [[{"prompt": f"Who{EVIL}?", "answer": f"{step}{EVIL}", "gold": 0.5}] for step in (1, 2, 3)]
    seen.training.samples = [{"step": i, "answers": a} for i, a in enumerate(answers, 1)]
    seen.training.steps(1, 2)
    html, text = seen.view.static().html, seen.view.static().text
    assert "<img src=x" not in html and html.count("&lt;img src=x onerror") == 3
    assert ">step 1<" in html and ">step 3<" in html and ">step 2<" not in html
    assert f"1{EVIL}" in text and f"3{EVIL}" in text


@pytest.mark.parametrize(
    ("state", "more", "said"),
    [
        ("stopped", {"run": SimpleNamespace(id="dpo-1.stopped-7", stopped={"step": 7, "of": 9})}, "Stopped after step 7 of 9. What it had learned is kept as dpo-1.stopped-7."),
        ("failed", {"error": LabError("Too hot: cool <it>.")}, "Too hot: cool &lt;it&gt;."),
        ("failed", {"error": ValueError("seven")}, "ValueError: seven"),
    ],
)  # fmt: skip
def test_the_picture_says_how_it_ended(seen: Any, state: str, more: dict[str, Any], said: str) -> None:
    seen.training.ends(state, **more)
    assert said in seen.view.static().html, "also before the first step"


def shown(view: TrainingView, monkeypatch: pytest.MonkeyPatch, *, attached: bool) -> list[tuple[Any, Any]]:
    """What showing the view displays: the bundle, and whether under an id by which it can be replaced."""
    import IPython.display

    displayed: list[tuple[Any, Any]] = []
    monkeypatch.setattr(show, "attached", lambda: attached)
    monkeypatch.setattr(
        IPython.display, "display", lambda bundle, raw, display_id=None: displayed.append((bundle, display_id))
    )
    view._ipython_display_()
    return displayed


def test_where_no_page_listens_showing_it_joins_and_leaves_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    training.steps(1, 1000)
    [(bundle, under)] = shown(TrainingView(training), monkeypatch, attached=False)
    assert training.asked == ["wait"] and set(bundle) == {"text/html", "text/plain"} and under is None
    assert "Finished: 1000 steps." in bundle["text/plain"]
    assert len(bundle["text/html"]) < 10_000


def test_a_failure_is_shown_where_no_page_listens_and_raised_by_the_next_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Training):
        def wait(self) -> Any:
            self.ends("failed", error=LabError("Too hot: cool it."))
            raise self.error

    view = TrainingView(Failing())
    [(bundle, _)] = shown(view, monkeypatch, attached=False)
    assert "Too hot: cool it." in bundle["text/plain"]
    with pytest.raises(LabError, match="Too hot"):
        view.wait()


def test_in_a_page_the_widget_is_shown_while_it_goes_on_and_the_picture_after(
    monkeypatch: pytest.MonkeyPatch, seen: Any
) -> None:
    seen.view.widget._repr_mimebundle_ = lambda: ({"application/vnd.jupyter.widget-view+json": {}}, {})
    [(bundle, under)] = shown(seen.view, monkeypatch, attached=True)
    assert list(bundle) == ["application/vnd.jupyter.widget-view+json"] and under is True
    assert seen.training.asked == [], "a page is not made to wait"
    seen.training.ends("finished", run="the run")
    [(bundle, under)] = shown(TrainingView(seen.training), monkeypatch, attached=True)
    assert set(bundle) == {"text/html", "text/plain"}


@pytest.mark.parametrize(("n", "most", "kept"), [(3, 5, [0, 1, 2]), (9, 5, [0, 2, 4, 6, 8]), (10, 4, [0, 3, 6, 9])])
def test_thinned_rows_are_even_and_keep_both_ends(n: int, most: int, kept: list[int]) -> None:
    assert thinned([{"step": i} for i in range(n)], most) == [{"step": i} for i in kept]
