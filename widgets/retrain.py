"""Label, retrain, look: a button that makes a model of one's own votes, and what it changed, side by side.

Where one wonders what to vote for, an exercise gives a rule and thirty pairs, and counts afterwards what the rule asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from labkit import show
from labkit.errors import LabError
from widgets.differences import marked, segments
from widgets.label import LabelView
from widgets.view import Handler, View

EVERY = 0.25  # seconds between two messages to the page
SOON = 5  # votes after which a retraining is likely enough to get ready for it
DOING = {
    "reward_yours": "A reward model learns your rankings.", "sft_yours": "The answers that you wrote are imitated.",
    "dpo_yours": "DPO learns from the pairs.", "kto_yours": "KTO learns good from bad.", "measure": "It answers, and is measured.",
}  # fmt: skip
HINT = "To label and to retrain, open this page in JupyterLab: labkit lab."


class RetrainView(View):
    """`loop` is a `labkit.loop.Loop`, or anything with its rater, counts, exercises, practice, start and last.

    `label` makes the view in which an exercise's pairs are judged.
    """

    front = "retrain"

    def __init__(self, loop: Any, *, label: Callable[..., View] = LabelView) -> None:
        self.loop, self._label = loop, label
        self.method, self.mix, self.exercise = next(iter(loop.methods)), next(iter(loop.mixes)), ""
        self.training: Any = None
        self._told, self._pushed, self._heard = "", 0.0, 0
        loop.listeners.append(self._vote)

    @cached_property
    def box(self) -> Any:
        """The view, and below it the labeller of an exercise once one is begun."""
        import ipywidgets

        return ipywidgets.VBox([self.widget])

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "choose": self._choose, "exercise": self._exercise, "begin": self._begin, "start": self._start,
            "stop": lambda _: self.training and self.training.discard(), "look": self._look,
        }  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        options = {"methods": self.loop.methods, "mixes": self.loop.mixes}
        return {
            **{name: [[key, said] for key, said in given.items()] for name, given in options.items()},
            "exercises": [
                {k: e[k] for k in ("name", "title", "rule", "measure", "of")} for e in self.loop.exercises()
            ],
            "result": self._result(), **self._where(),
        }  # fmt: skip

    def _where(self) -> dict[str, Any]:
        """What changes while one votes and while it trains."""
        t = self.training
        last = t.rows[-1] if t and t.rows else None
        counts = self.loop.counts(self.exercise)
        return {
            "rater": self.loop.rater, "method": self.method, "mix": self.mix, "exercise": self.exercise, "counts": counts,
            "state": t.state if t else "idle", "share": last["step"] / last["of"] if last else 0.0,
            "left": t.left() if t else None, "doing": DOING.get(last.get("part"), "") if last else "", "said": t.said if t and t.state in ("failed", "stopped") else "",
        }  # fmt: skip

    def _result(self) -> dict[str, Any] | None:
        """The latest retraining in words, its examples with what differs marked."""
        if not self.loop.last:
            return None
        told = self.loop.last.told()
        examples = [
            {
                "prompt": e["prompt"],
                "before": segments(e["after"], e["before"]),
                "after": segments(e["before"], e["after"]),
            }
            for e in told["examples"]
        ]
        return {**told, "examples": examples}

    # ---- what the person does

    def _choose(self, message: dict[str, Any]) -> None:
        for name, known in (("method", self.loop.methods), ("mix", self.loop.mixes)):
            if message.get(name) in known:
                setattr(self, name, message[name])
        self._news(now=True)

    def _exercise(self, message: dict[str, Any]) -> None:
        """Take up an exercise, or with an empty name one's own votes again; its method is chosen with it."""
        found = {e["name"]: e for e in self.loop.exercises()}.get(str(message.get("name") or ""))
        self.exercise = found["name"] if found else ""
        self.method = found["method"] if found else self.method
        self.box.children = [self.widget]
        self._news(now=True)

    def _begin(self, message: dict[str, Any]) -> None:
        """Show the labeller with the exercise's pairs."""
        if not self.exercise:
            raise LabError("Choose an exercise first: it says what to vote for.")
        view = self._label(self.loop.practice(self.exercise), on_vote=self.loop.hear, renames=False)
        self.box.children = [self.widget, view.widget]

    def _start(self, message: dict[str, Any]) -> None:
        self.training = self.loop.start(method=self.method, mix=self.mix, exercise=self.exercise)
        self.training.listeners.append(self._news)
        self._news()

    def _vote(self, vote: Any) -> None:
        """A vote was stored, here or in another cell."""
        self._heard += 1
        if self._heard == SOON:
            self.loop.warm()
        self._news()

    def _look(self, message: dict[str, Any]) -> None:
        """The person has come to the view."""
        self.loop.warm()
        self._news()

    def _news(self, *, now: bool = False) -> None:
        """Tell the page what is new, at most four times a second while it trains unless `now`; on any thread."""
        if "widget" not in self.__dict__:
            return
        state = self.training.state if self.training else ""
        ended = state != self._told
        if not (ended or now) and state == "running" and time.monotonic() - self._pushed < EVERY:
            return
        with self.lock:
            self._told, self._pushed = state, time.monotonic()
            more = self._outcome() if ended and state == "finished" else {}
            self.say("news", **{**self._where(), **more})

    def _outcome(self) -> dict[str, Any]:
        """What came of it; a figure that cannot be drawn must not leave the page waiting."""
        try:
            return {"result": self._result()}
        except Exception as error:
            return {"said": f"It is trained, but cannot be shown ({type(error).__name__}: {error}).", "state": "failed"}

    # ---- where nobody can click

    def static(self) -> show.Html:
        """The latest before and after, or what stands to be learned from; and where one can do it."""
        result = self._result()
        if not result:
            n = self.loop.counts()
            said = (
                f"{n['votes']} votes by {self.loop.rater} stand here. {HINT}"
                if n["votes"]
                else f"Nobody has voted here yet. {HINT}"
            )
            lines = [*(f"{e['title']}: {e['rule']}" for e in self.loop.exercises()), said]
            return show.Html("".join(f"<p>{show.esc(line)}</p>" for line in lines), "\n".join(lines))
        heads = {"measure": "", "before": "before", "after": "after", "difference": "difference [95 %]"}
        judged = {"judge": "orders pairs as voted", "on": "on", "n": "pairs", "before": "before", "after": "after"}
        sides = [
            {"prompt": e["prompt"], "before": marked(e["before"]), "after": marked(e["after"])}
            for e in result["examples"]
        ]
        said = " ".join(x for x in (result["said"], result["wins"]) if x)
        head = show.Html(f"<p><b>{show.esc(result['title'])}</b><br>{show.esc(said)}</p>", f"{result['title']}\n{said}")
        tables = [show.table(result["rows"], heads), show.table(result["held_out"], judged), show.table(sides)]
        return show.together([head, *tables])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> Any:
        if show.attached():
            return self.box._repr_mimebundle_(include=include, exclude=exclude, **kwargs)
        return super()._repr_mimebundle_(include, exclude, **kwargs)
