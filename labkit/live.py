"""What a page shows while a run is on its way and what stays of it: a line, its curves, and how its answers changed.

Where nobody is looking (papermill) only the last line is printed, so that an executed page stays small.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
        self._rows: list[dict[str, Any]] = []

    def __call__(self, job: Job, row: dict[str, Any]) -> None:
        if job.id != self._run:
            self._run, self._drawn, self._handle, self._rows = job.id, 0.0, None, []
        self._rows.append(row)
        last = row["step"] >= row["of"]
        now = time.monotonic()
        if not (last or self.attached and now - self._drawn >= EVERY):
            return
        self._drawn = now
        self._draw(picture(job.name, self._rows) if self.attached else Html("", line(job.name, row)))

    def _draw(self, seen: Html) -> None:
        from IPython.display import display

        if not self.attached:
            print(seen.text)
        elif self._handle is None:
            self._handle = display(seen, display_id=True)
        else:
            self._handle.update(seen)


def line(name: str, row: Mapping[str, Any]) -> str:
    """A row of metrics as one line: how far it is, the figures that matter, the time left."""
    metrics = {key: row[key] for key in WATCH if key in row}
    return show.progress(row["step"], row["of"], row["seconds"], metrics, name=name)


def picture(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    """The last row as a line, and the curves so far."""
    said = line(name, rows[-1])
    return show.together([Html(f"<div>{show.esc(said)}</div>", said), curves(name, rows)])


def curves(name: str, rows: Sequence[Mapping[str, Any]]) -> Html:
    """The metrics that matter, as a drawing (in text their last values); nothing where there is none yet."""
    every = {key: [(row["step"], row[key]) for row in rows if key in row] for key in WATCH}
    points = {key: found for key, found in every.items() if found}
    if not points:
        return Html("", "")
    last = " · ".join(f"{key} {found[-1][1]:.3g}" for key, found in points.items())
    return Html(drawings.image(charts.live_svg(points), alt=f"curves of {name}: {last}"), last)


def ways(samples: Sequence[Mapping[str, Any]]) -> Html:
    """How the answers to the same prompts changed on the way: a row a prompt, a column for the first step seen and the last."""
    if not samples:
        return Html("", "")
    ends = {f"step {s['step']}": s["answers"] for s in (samples[0], samples[-1])}
    rows = [
        {"prompt": first["prompt"]} | {at: answers[i]["answer"] for at, answers in ends.items()}
        for i, first in enumerate(samples[0]["answers"])
    ]
    return show.table(rows)
