"""One prompt, two to six models side by side: asked live, leafed through from disk, or judged blind.

The stored answers need neither weights nor torch; a model is loaded when it is first asked. A view never sees the test split.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from labkit import arena, show
from labkit.compare import Comparison
from labkit.errors import LabError
from labkit.records import Answer, Prompt
from labkit.runs import Run
from widgets.asking import Model, Question, manner
from widgets.booth import Booth
from widgets.stored import Stored, asked, card, joined, rewarded, row
from widgets.view import Handler, View

if TYPE_CHECKING:
    from labkit.feedback.store import VoteStore

MOST, MODES = 6, ("live", "browse", "arena")
HINT = "To ask these models, leaf through all answers or vote, open this page in JupyterLab: labkit lab."
NOTHING = Comparison(split="validation", score="", reference="sft", prompts=(), answers={}, runs={})


class CompareView(View):
    """`models` maps a row of the comparison to a function that answers (or makes such a mapping from a comparison, as
    `ask.behind` does); `votes` is where votes go; `scored(comparison, answers)` gives answers the proxy's reward.

    Raises LabError for a comparison of the test split, which is for the report alone.
    """

    front = "cards browse live arena compare"

    def __init__(
        self, comparison: Comparison = NOTHING, *,
        models: Mapping[str, Model] | Callable[[Comparison], Mapping[str, Model]] | None = None,
        votes: VoteStore | None = None, scored: Callable[[Comparison, Sequence[Answer]], Sequence[Answer]] | None = None,
        rater: str = "me", max_tokens: int = 48, seed: int | None = None,
    ) -> None:  # fmt: skip
        self._models, self._scored = models, scored
        self.booth = Booth(votes, rater, seed=seed) if votes is not None else None
        self.how: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": max_tokens, "seed": 0}
        self.mode, self.scoring, self.warm = "", None, set[Any]()
        self.compare(comparison)

    def compare(self, comparison: Comparison) -> None:
        """Show another comparison; what was asked before is put away."""
        if comparison.split == "test":
            raise LabError("The test split is for the report alone: compare runs on the validation split.")
        if getattr(self, "live", None):
            self.live.stop(quiet=True)
        self.c, self.live = comparison, None
        self.models = dict(self._models(comparison) if callable(self._models) else self._models or {})
        self.rows = list(dict.fromkeys([*comparison.authors, *self.models]))
        best = [r for r in self.rows if r in self.models] or self.rows
        self.shown = sorted((best if len(best) > 1 else self.rows)[:MOST], key=self.rows.index)
        self.reference = next((r for r in (comparison.reference, *self.shown) if r in self.shown), "")
        self.mode = self.mode or ("browse" if comparison.prompts else "live")
        self._lay_out()

    def follow(self, runs: Iterable[Run]) -> None:
        """Show these runs, of whatever recipes; for `RunPicker.on_change`. Runs that answered nothing are passed over."""
        answering = [run for run in runs if "answers.jsonl" in run.manifest["files"]]
        if answering:
            found = joined(answering, reference=self.reference or "sft")
            with self.lock:
                self.compare(found)
                self.say("snapshot", **self.snapshot())

    def _lay_out(self) -> None:
        """The stored answers in the columns that are shown now; the filter stays."""
        before = getattr(self, "stored", None)
        columns = [a for a in self.shown if a in self.c.answers]
        base = self.reference if self.reference in columns else next(iter(columns), self.reference)
        self.stored = Stored(self.c, columns, base, like=before)

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "mode": self._mode, "shown": self._show, "reference": self._refer, "filter": self._filter, "go": self._go,
            "score": self._score, "ask": self._ask, "stop": self._stop, "round": self._round, "letters": self._letters,
        }  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "models": [self._model(name) for name in self.rows],
            "shown": self.shown,
            "reference": self.reference,
            "how": self.how,
            "browse": self._browse(),
            "live": self._asked(),
            "votes": self.booth is not None,
            "outbox": self.booth.outbox if self.booth else "",
            "round": self.booth.now() if self.booth else None,
            "standings": self.booth.standings() if self.booth else [],
        }

    def _askable(self) -> dict[str, Model]:
        return {name: self.models[name] for name in self.shown if name in self.models}

    def _run(self, name: str) -> Run | None:
        """The run behind a row, also of a model that is no part of the comparison."""
        return self.c.runs.get(name) or getattr(self.models.get(name), "run", None)

    def _model(self, name: str) -> dict[str, Any]:
        return {**row(name, self._run(name)), "live": name in self.models, "stored": name in self.c.answers}

    def _mode(self, message: dict[str, Any]) -> None:
        self.mode = message["mode"] if message.get("mode") in MODES else self.mode

    def _show(self, message: dict[str, Any]) -> None:
        wanted = [name for name in self.rows if name in message.get("names", ())]
        if not 2 <= len(wanted) <= MOST:
            raise LabError(f"Two to {MOST} models can stand side by side.")
        self.shown = wanted
        self.reference = next(r for r in (self.reference, self.c.reference, wanted[0]) if r in wanted)
        self._changed()

    def _refer(self, message: dict[str, Any]) -> None:
        if message.get("name") in self.shown:
            self.reference = message["name"]
            self._changed()

    def _changed(self) -> None:
        self._lay_out()
        self.say("snapshot", **self.snapshot())

    def _filter(self, message: dict[str, Any]) -> None:
        self.stored.refilter(message.get("values", {}))
        self.say("browse", **self._browse())

    def _go(self, message: dict[str, Any]) -> None:
        self.stored.at = int(message.get("at", 0))
        self.say("browse", **self._browse())

    def _browse(self) -> dict[str, Any]:
        waits = self.scoring is not None and self.scoring.is_alive()
        return {**self.stored.page(), "scores": self._scored is not None, "scoring": waits}

    def _score(self, message: dict[str, Any]) -> None:
        """Ask the reward model what it thinks of all answers that it has not seen, in a thread."""
        if not self._scored or (self.scoring and self.scoring.is_alive()):
            return
        self.scoring = threading.Thread(target=self._scores, args=(self._scored, self.c), daemon=True)
        self.scoring.start()
        self.say("browse", **self._browse())

    def _scores(self, scored: Callable[..., Sequence[Answer]], c: Comparison) -> None:
        wrong = ""
        try:
            waiting = self.stored.unrewarded()
            found = replace(c, answers=rewarded(c, waiting, scored(c, [a for _, a in waiting])))
        except Exception as error:  # a view must outlive whatever a model does
            wrong = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        with self.lock:
            self.scoring = None
            if not wrong and c is self.c:
                self.c = found
                self._lay_out()
            self.say("browse", **self._browse())
            if wrong:
                self.say("error", text=wrong)

    def _ask(self, message: dict[str, Any]) -> None:
        """Ask the models that are shown; the page is told column by column, and `asked` at the end."""
        self._free()
        text, self.how = str(message.get("text", "")), manner(message.get("how", {}), self.how)
        models = self._askable()
        if not text.strip():
            raise LabError("There is nothing to answer yet: type a question first.")
        if not models:
            raise LabError("None of these models can be asked: their weights are not there.")
        say = lambda kind, **content: self.say(kind, to="live", **content)  # noqa: E731
        self.live = Question(text, models, self.how, say=say, done=self._answered, warm=self.warm)
        self.say("asked", live=self._asked())
        self.live.start()

    def _free(self) -> None:
        """Raise LabError while a question is still being answered: two at once would only be slower."""
        if any(question.busy for question in self._questions()):
            raise LabError("The models are still answering: wait, or stop them first.")

    def _questions(self) -> list[Question]:
        return [q for q in (self.live, self.booth.question if self.booth else None) if q]

    def _answered(self, question: Question) -> None:
        with self.lock:
            if question is self.live:
                self.say("asked", live=self._asked())

    def _asked(self) -> dict[str, Any]:
        """The live question as the page shows it; once all have answered, with differences, scores, and what a vote needs."""
        if self.live is None:
            return {"text": "", "busy": False, "columns": [], "seal": ""}
        given, busy = self.live.answers, self.live.busy
        base = given.get(self.reference)
        columns = self.live.columns()
        done = [c for c in columns if c["name"] in given and not busy]
        for column in done:
            against = base.text if base and column["name"] != self.reference else None
            column |= card(given[column["name"]], self._run(column["name"]), against=against)
        prompt = next((a.prompt for a in given.values()), None) or Prompt.of(self.live.text.strip(), kind="typed")
        seal = arena.seal([arena.identity(c["name"], self._run(c["name"])) for c in done])
        return {"text": self.live.text, "busy": busy, "columns": columns, "seal": seal, **asked(prompt)}

    def _stop(self, message: dict[str, Any]) -> None:
        for question in self._questions():
            question.stop()

    def _round(self, message: dict[str, Any]) -> None:
        """A new blind round, of stored answers or of a typed prompt."""
        if self.booth is None:
            raise LabError("There is no vote store here: give the view votes=lab.votes.")
        self._free()
        text = str(message.get("text", ""))
        if text.strip():
            self.how = manner(message.get("how", {}), self.how)
            say = lambda kind, **content: self.say(kind, to="arena", **content)  # noqa: E731
            models, owners = self._askable(), {name: self._run(name) for name in self.shown}
            self.booth.ask(text, models, owners, self.how, say=say, done=self._duelled, warm=self.warm)
        else:
            self.booth.draw(self.c, self.stored.shown)
        self.say("round", round=self.booth.now())

    def _duelled(self, question: Question) -> None:
        with self.lock:
            if self.booth:
                self.booth.answered(question)
                self.say("round", round=self.booth.now())

    def _letters(self, message: dict[str, Any]) -> None:
        if self.booth is not None:
            kept = self.booth.take(message.get("letters", []))
            self.say("kept", **kept, standings=self.booth.standings())

    def static(self) -> show.Html:
        """A few prompts, chosen by a rule that nobody steers, with everybody's first answer and what differs from the reference."""
        told = show.Html(f'<div style="{show.FAINT}">{show.esc(HINT)}</div>', HINT)
        return show.together([*(self.stored.twin(e["prompt"]) for e in self.c.best_examples(3)), told])
