"""A training to look at while it goes on: curves, time left, answers on the way, and a Stop that keeps what is there.

    view = TrainingView(background.train(lab, "dpo"))     a cell; it shows the view
    run = await view                                      the next cell; the view stays alive while it waits

At the end a static picture takes the view's place in the page. Where no page listens, showing it joins the training first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from labkit import show
from widgets.view import Handler, View

EVERY = 0.25  # seconds between two messages to the page
POINTS = 300  # rows of a snapshot: more cannot be seen, and a reload should be quick


class TrainingView(View):
    """`training` is a `labkit.background.Background`, or anything with its rows, samples, state and stop."""

    front = "training"

    def __init__(self, training: Any) -> None:
        self.training = training
        self._sent = self._seen = 0  # rows and samples that the page has been told
        self._pushed, self._told = 0.0, ""
        self._handle: Any = None
        training.listeners.append(self._changed)

    @property
    def run(self) -> Any:
        """What came of it; None while it goes on."""
        return self.training.run

    def wait(self) -> Any:
        """Join it, as `Background.wait` does. In a page `await view` is better: it lets the Stop button through."""
        return self.training.wait()

    def __await__(self) -> Generator[Any, None, Any]:
        return self.training.__await__()

    def snapshot(self) -> dict[str, Any]:
        with self.lock:
            t = self.training
            self._sent, self._seen = len(t.rows), len(t.samples)
            rows = thinned(t.rows[: self._sent], POINTS)
            samples = t.samples[: self._seen]
            return {"title": t.title, "watch": list(t.watch), "rows": rows, "samples": samples, **self._where()}

    def handlers(self) -> Mapping[str, Handler]:
        return {"stop": lambda _: self.training.stop(), "discard": lambda _: self.training.discard()}

    def static(self) -> show.Html:
        return self.training.picture()

    def _where(self) -> dict[str, Any]:
        """How far it is: what every message says, so that the page never shows a state that is over."""
        t = self.training
        return {"state": t.state, "said": t.said, "left": t.left(), "told": self._sent, "shown": self._seen}

    def _changed(self) -> None:
        """Tell the page what is new, at most four times a second; called on the thread that trains."""
        if "widget" in self.__dict__ and self._due():
            with self.lock:
                self._pushed, self._told = time.monotonic(), self.training.state
                rows, samples = self.training.rows[self._sent :], self.training.samples[self._seen :]
                start = {"from": self._sent, "first": self._seen}
                self._sent, self._seen = self._sent + len(rows), self._seen + len(samples)
                self.say("rows", rows=rows, samples=samples, **start, **self._where())
        if self._over() and self._handle:
            self._handle.update(self._picture(), raw=True)

    def _due(self) -> bool:
        """Whether to speak now: after a while, at a new state, at the last step (the measuring that follows is silent)."""
        t = self.training
        trained = t.rows and t.rows[-1]["step"] >= t.rows[-1]["of"]
        return trained or t.state != self._told or time.monotonic() - self._pushed >= EVERY

    def _over(self) -> bool:
        return self.training.state not in ("running", "stopping")

    def _picture(self) -> dict[str, str]:
        seen = self.static()
        return {"text/html": seen._repr_html_(), "text/plain": seen.text}

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if not show.attached():
            with contextlib.suppress(Exception):  # raised where the run is asked for: an error here would end no cell
                self.training.wait()
        if self._over():
            display(self._picture(), raw=True)
            return
        data = self.widget._repr_mimebundle_()
        self._handle = display(data[0] if isinstance(data, tuple) else data, raw=True, display_id=True)
        self._changed()  # it may have ended in this moment


def thinned(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` of the rows, evenly, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]
