"""What a stage is handed: its settings, its parents, its votes, and the plumbing to seed, log and time itself."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import stages
from labkit.errors import LabError
from labkit.recipe import Recipe
from labkit.records import Vote, digest
from labkit.runs import Run

if TYPE_CHECKING:
    from labkit.lab import Lab
    from labkit.sources import Source


class Stopped(LabError):
    """A person stopped a run before its end, so that there is no whole run to go on with."""


class Stop(threading.Event):
    """Asks a job to end: `set` after the step at hand, keeping what is there; `abandon` at once, keeping nothing."""

    abandoned = False

    def abandon(self) -> None:
        self.abandoned = True
        self.set()


@dataclass
class Job:
    """What a stage is handed: its settings, its parents, its votes, and the plumbing to log, save and close."""

    lab: Lab
    name: str
    id: str
    settings: Any
    folder: Path
    parents: dict[str, Run]
    votes: list[Vote]
    summary: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    listeners: list[Any] = field(default_factory=list)
    stop: Stop = field(default_factory=Stop)
    stopped: dict[str, int] = field(default_factory=dict)  # `step` and `of` where a person ended it
    policy: Any = None  # the model that is trained and its tokenizer, once there are any, for whoever watches
    tokenizer: Any = None

    @property
    def recipe(self) -> Recipe:
        return self.lab.recipe

    @property
    def source(self) -> Source:
        return self.lab.source

    @property
    def seed(self) -> int:
        """A seed of this run's own: the recipe's seed and the run's name, mixed."""
        return int(digest([self.recipe.seed, self.name], 8), 16) % 2**31

    @cached_property
    def device(self) -> str:
        """`cpu`, `cuda` or `mps`."""
        import torch

        wanted = self.recipe["model"].device
        if wanted != "auto":
            return wanted
        return "cuda" if torch.cuda.is_available() else "cpu"

    def prepare(self) -> None:
        """Fix the threads and every random number generator, so that a second run gives the same bytes."""
        import datasets
        import torch
        import transformers

        torch.set_num_threads(self.settings.threads)
        transformers.set_seed(self.seed)
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()  # a fresh score head is meant, and not worth a report
        datasets.disable_progress_bars()
        os.environ["TQDM_DISABLE"] = "1"
        self._clock = time.monotonic()
        self._metrics = open(self.folder / "metrics.jsonl", "w", encoding="utf-8")

    def log(self, step: int, of: int, **metrics: float) -> None:
        """Write one line of metrics (`step`, `of`, `seconds`, and names such as `train/loss`) and tell who listens.

        Raises LabError when a loss is not a number: the run is not worth going on with.
        """
        row: dict[str, Any] = {"step": step, "of": of, "seconds": round(time.monotonic() - self._clock, 2)}
        for key, value in metrics.items():
            if not math.isfinite(value):
                raise LabError(
                    f"{key} became {value} at step {step} of {self.name}: lower {self.stage}.learning_rate and run again."
                )
            row[key] = round(float(value), 6)
        self._metrics.write(json.dumps(row) + "\n")
        self._metrics.flush()
        for listen in self.listeners:
            listen(self, row)
        self.check()

    def stops(self, step: int, of: int) -> bool:
        """Whether to end here, after `step` of `of` steps, because a person said so: every training loop asks and breaks.

        What the stage then saves and answers is kept, under an id of its own, as a run that says where it stopped. After
        the last step there is nothing left to stop. Raises Stopped when nothing shall be kept.
        """
        self.check()
        if self.stop.is_set() and step < of:
            self.stopped = {"step": step, "of": of}
        return bool(self.stopped)

    def check(self) -> None:
        """Raise Stopped when the run was abandoned."""
        if self.stop.abandoned:
            raise Stopped(f"{self.name} was stopped and nothing of it was kept: run it again to make it whole.")

    @property
    def stage(self) -> str:
        return stages.GRAPH[self.name].stage

    @contextlib.contextmanager
    def phase(self, name: str) -> Any:
        """Time a part of the stage; the manifest lists seconds by part."""
        self.check()
        start = time.monotonic()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.monotonic() - start

    def close(self) -> None:
        self._metrics.close()
