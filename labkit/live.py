"""What a page shows while a run is on its way: one line and its curves, redrawn a few times a second.

Where nobody is looking (papermill) only the last line is printed, so that an executed page stays small.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from labkit import charts, drawings, show
from labkit.markup import Html

if TYPE_CHECKING:
    from labkit.job import Job

EVERY = 0.25  # seconds between two pictures: more only keeps the browser busy
WATCH = (
    "rollout/reward", "rollout/gold", "rollout/kl", "train/loss", "train/accuracy", "train/margin", "train/token_accuracy",
    "votes",
)  # fmt: skip


class Live:
    """A listener for `Lab.listeners`: called as `live(job, row)` at each logged step."""

    def __init__(self, *, attached: bool) -> None:
        self.attached = attached
        self._run, self._drawn = "", 0.0
        self._handle: Any = None
        self._points: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, job: Job, row: dict[str, Any]) -> None:
        if job.id != self._run:
            self._run, self._drawn, self._handle, self._points = job.id, 0.0, None, {}
        for key in WATCH:
            if key in row:
                self._points.setdefault(key, []).append((row["step"], row[key]))
        last = row["step"] >= row["of"]
        now = time.monotonic()
        if not (last or self.attached and now - self._drawn >= EVERY):
            return
        self._drawn = now
        self._draw(self._picture(job.name, row) if self.attached else Html("", self._line(job.name, row)))

    def _line(self, name: str, row: dict[str, Any]) -> str:
        metrics = {key: row[key] for key in WATCH if key in row}
        return show.progress(row["step"], row["of"], row["seconds"], metrics, name=name)

    def _picture(self, name: str, row: dict[str, Any]) -> Html:
        line = self._line(name, row)
        svg = drawings.image(charts.live_svg(self._points), alt=f"curves of {name} so far")
        return Html(f"<div>{show.esc(line)}</div>{svg}", line)

    def _draw(self, seen: Html) -> None:
        from IPython.display import display

        if not self.attached:
            print(seen.text)
        elif self._handle is None:
            self._handle = display(seen, display_id=True)
        else:
            self._handle.update(seen)
