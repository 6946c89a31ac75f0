"""One question that several models answer in turn, in a thread of its own, while the page looks on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from labkit.errors import LabError
from labkit.records import Answer

Model = Callable[..., "Answer | str"]
RANGES = {"temperature": (0.0, 2.0), "top_p": (0.05, 1.0), "max_tokens": (1, 2048), "seed": (0, 10**9)}
PACE = 0.02  # seconds between two messages of new words: more often than anybody sees, and the page is not flooded


class Question:
    """`models` maps a column to a function `(text, temperature=, top_p=, max_tokens=, seed=, on_token=) → answer`.

    `say(kind, **content)` is told `column` when a column's state changes and `written` for new words; `done(self)` at the end.
    A column's state is waiting, loading, writing, done, stopped or failed. A model that fails does not stop the next.
    """

    def __init__(
        self, text: str, models: Mapping[str, Model], how: Mapping[str, Any], *,
        say: Callable[..., None], done: Callable[[Question], None], warm: set[Any] | None = None,
    ) -> None:  # fmt: skip
        self.text, self.how, self.answers = text, dict(how), dict[str, Answer]()
        self._models, self._said, self._done, self._quiet = dict(models), say, done, False
        self._warm = set() if warm is None else warm  # models that have answered before: nothing is loaded for them
        self._states = dict.fromkeys(models, "waiting")
        self._texts = dict.fromkeys(models, "")
        self._sent = dict.fromkeys(models, "")
        self._told = 0.0
        self._stop = threading.Event()
        self._lock = threading.RLock()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Question:
        self.thread.start()
        return self

    def stop(self, *, quiet: bool = False) -> None:
        """End after the token at hand; what is written stays. `quiet`: and say nothing more, since nobody looks any more."""
        self._quiet = self._quiet or quiet
        self._stop.set()

    @property
    def busy(self) -> bool:
        waits = self.thread.ident is None or self.thread.is_alive()
        return waits and not all(s in ("done", "stopped", "failed") for s in self._states.values())

    def columns(self) -> list[dict[str, Any]]:
        """What the page shows now: name, state and text of each column. New words are said first, so that none is doubled."""
        with self._lock:
            self._flush()
            return [{"name": n, "state": self._states[n], "text": self._texts[n]} for n in self._models]

    def _run(self) -> None:
        for name, model in self._models.items():
            if self._stop.is_set():
                self._become(name, "stopped")
                continue
            self._become(name, "writing" if model in self._warm else "loading")
            self._answer(name, model)
        self._done(self)

    def _answer(self, name: str, model: Model) -> None:
        try:
            given = model(self.text, **self.how, on_token=lambda text: self._heard(name, text))
        except LabError as error:
            return self._become(name, "failed", str(error))
        except Exception as error:  # a view must outlive whatever a model does
            return self._become(name, "failed", f"{type(error).__name__}: {error}")
        if isinstance(given, Answer):
            self.answers[name] = given
        self._warm.add(model)
        self._become(
            name, "stopped" if self._stop.is_set() else "done", given if isinstance(given, str) else given.text
        )

    def _heard(self, name: str, text: str) -> bool:
        """All of an answer so far, after each token; returns whether to go on."""
        with self._lock:
            self._texts[name] = text
            if self._states[name] == "loading":
                self._become(name, "writing", text)
            elif time.monotonic() - self._told >= PACE:
                self._flush()
        return not self._stop.is_set()

    def _say(self, kind: str, **content: Any) -> None:
        if not self._quiet:
            self._said(kind, **content)

    def _become(self, name: str, state: str, text: str | None = None) -> None:
        with self._lock:
            self._states[name] = state
            self._texts[name] = self._sent[name] = self._texts[name] if text is None else text
            self._say("column", column=name, state=state, text=self._texts[name])

    def _flush(self) -> None:
        """Say what was written since; a text that did not simply grow is said whole."""
        for name, text in self._texts.items():
            before = self._sent[name]
            if text == before:
                continue
            grown = text.startswith(before)
            self._say("written", column=name, **({"add": text[len(before) :]} if grown else {"text": text}))
            self._sent[name] = text
        self._told = time.monotonic()


def manner(given: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling settings from the page, each within its range; what is missing or no number stays as it was."""
    out = dict(now)
    for key, (low, high) in RANGES.items():
        try:
            value = float(given[key])
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(value):
            value = min(max(value, low), high)
            out[key] = int(value) if isinstance(low, int) else value
    return out
