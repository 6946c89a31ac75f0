"""The loop as a page holds it: a lab, a person, what they are asked and have voted, and what can be made of it.

A view is handed a `Loop` and needs to know nothing of models. Only one training goes on in a kernel at a time.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

from labkit import exercises, retrain, show
from labkit.background import Background
from labkit.effect import Retrained
from labkit.feedback.session import Session, items_from_run
from labkit.feedback.standing import kept_out, standing
from labkit.lab import Lab
from labkit.records import Answer, Vote

MODES = ("pair", "ranking", "thumb")
TYPED = 4  # answers to a prompt that the person typed
WARM = ("torch", "datasets", "transformers.trainer", "peft", "trl")


class Loop:
    """`last` is the latest retraining. `listeners` are told of every vote that is stored, on whichever thread hears it."""

    methods, mixes = retrain.METHODS, retrain.MIXES

    def __init__(self, lab: Lab, rater: str = "me") -> None:
        self.lab, self._rater = lab, rater
        self.last: Retrained | None = None
        self.listeners: list[Callable[[Vote], Any]] = []
        self._warmed = False

    @cached_property
    def session(self) -> Session:
        """All answers of the preferences run to training prompts, to be judged in any of three ways."""
        run = retrain.need(self.lab, "preferences")
        items = {mode: items_from_run(run, mode=mode, seed=self.lab.recipe.seed) for mode in MODES}
        return Session(self.lab.votes, items, self._rater, seed=self.lab.recipe.seed)

    @property
    def rater(self) -> str:
        """Whose votes are learned from: the name that the session has now."""
        return self.session.rater if "session" in self.__dict__ else self._rater

    def hear(self, vote: Vote) -> None:
        """A vote was stored."""
        for listen in list(self.listeners):
            listen(vote)

    def ask(self, text: str) -> list[Answer]:
        """What the SFT model answers to a typed prompt, several times."""
        from labkit import ask

        model = ask.answerers(self.lab, "sft")["sft"]
        return [model(text, seed=seed) for seed in range(TYPED)]

    def exercises(self) -> list[dict[str, Any]]:
        """What can be practised on this lab's answers: rows of name, title, rule, measure, method and of (pairs on offer)."""
        run, rows = self.lab.find("preferences"), []
        for e in exercises.EXERCISES.values() if run else ():
            offered = exercises.items(e, run) if run else []
            if sum(not kept_out(item.prompt) for item in offered) >= retrain.LEAST:
                row = {key: getattr(e, key) for key in ("name", "title", "rule", "measure", "method")}
                rows.append({**row, "of": len(offered)})
        return rows

    def practice(self, exercise: str, rater: str = "") -> Session:
        """The pairs of an exercise, to be judged by the person."""
        run = retrain.need(self.lab, "preferences")
        return exercises.session(exercises.find(exercise), run, self.lab.votes, rater or self.rater)

    def counts(self, exercise: str = "") -> dict[str, int]:
        """What the person's votes amount to, on the lab's own answers or in an exercise."""
        return standing(self.lab, rater=self.rater, exercise=exercise).counts()

    def start(self, *, method: str, mix: str, exercise: str = "") -> Background:
        """Retrain beside the page; `run` of what is returned is then a `Retrained`. Raises LabError at once where it cannot."""
        how = {"method": method, "mix": mix, "rater": self.rater, "exercise": exercise}
        retrain.check(self.lab, **how)

        def work(progress: Any, *, stop: Any) -> Retrained:
            self.last = retrain.retrain(self.lab, **how, progress=progress, stop=stop)  # type: ignore[arg-type]
            return self.last

        return Background(self.lab, work, name="retraining", sample=False)

    def rehearse(self, *names: str, mix: str = "mine") -> Retrained | None:
        """Where no person is at the page, a simulated one does the first of these exercises that this lab has pairs for, and
        is learned from; else nothing is done."""
        known = {e["name"]: e for e in self.exercises()}
        name = next((n for n in names if n in known), "")
        if show.attached() or not name:
            return None
        found, who = exercises.find(name), f"exercise-{name}"
        exercises.follow(found, self.practice(name, who))
        self.last = retrain.retrain(self.lab, method=found.method, mix=mix, rater=who, exercise=name)
        return self.last

    def warm(self) -> None:
        """Import what training needs while the person still labels, once: it takes nearly as long as the training itself."""
        if not self._warmed:
            self._warmed = True
            threading.Thread(target=_warm, daemon=True).start()


def _warm() -> None:
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
