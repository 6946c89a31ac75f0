"""Training beside the page: a run is made in a thread of its own, with rows to look at, answers on the way, and a Stop.

`await train(lab, "dpo")` in a cell joins it and leaves the page free to be clicked on; `.wait()` does the same in a script. One
training at a time in a kernel: two would share its cores and draw from the same random numbers.

`Job.prepare` sets torch's threads for the thread that trains and for later ones; whoever answers a prompt meanwhile competes
for the cores and changes no sum of the training.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import live, show, theme
from labkit.errors import LabError
from labkit.job import Stop, Stopped

if TYPE_CHECKING:
    from labkit.job import Job
    from labkit.lab import Lab

SAMPLES = 12  # times that two prompts are answered while a run trains
LINGER = 10.0  # seconds that a new training waits for the thread of one that is over
GOING = ("running", "stopping")

_turn = threading.Lock()
_now: Background | None = None


def train(lab: Lab, name: str) -> Background:
    """The run called `name`, being made from now on; the same one again where this kernel is making it already."""
    if _now and _now.state in GOING and (_now.folder, _now.id) == (lab.folder, lab.plan(name).id):
        return _now
    return Background(lab, name)


class Background:
    """`lab.run(name)` in a thread, or any function `work(progress, stop=...)` under a name.

    `progress` takes rows as `Job.log` writes them (`step`, `of`, `seconds`, metrics); `stop` is a `labkit.job.Stop`. Raises
    LabError where another training goes on in this kernel. `state` is "running", "stopping", "stopped", "finished" or
    "failed", and `said` a sentence on it; `run` is what came of it: the run, what a stopped one had come to, or None.
    """

    watch = live.WATCH

    def __init__(self, lab: Lab, work: str | Callable[..., Any], *, name: str = "", sample: bool | None = None) -> None:
        mine = work if isinstance(work, str) else ""
        self.name, self.folder = mine or name, lab.folder
        self.title, self.id = theme.step(self.name), lab.plan(mine).id if mine else name
        self.sample = show.attached() if sample is None else sample  # whether to answer prompts on the way
        self.rows: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.listeners: list[Callable[[], None]] = []  # called after each row and each change of state, on any thread
        self.state = "running"
        self.run: Any = None
        self.error: BaseException | None = None
        self._stop, self._lock, self._over = Stop(), threading.RLock(), threading.Event()
        self._before = self._due = 0
        if mine and (run := lab.find(mine)):
            self.rows = run.metrics()
            self._end("finished", run)
            return
        do = partial(lab.run, work, listen=self._hear) if isinstance(work, str) else partial(work, self.take)
        self.thread = threading.Thread(target=self._go, args=[do], name=f"training {self.id}", daemon=True)
        _claim(self)

    @property
    def said(self) -> str:
        """Where it stands, in a sentence or two."""
        if self.state == "running":
            last = self.rows[-1] if self.rows else None
            if last and last["step"] >= last["of"]:
                return "Trained. Now it is measured."
            return "Training." if last else "Getting ready: the model and its data are loaded."
        if self.state == "stopping":
            return "Ending after this step. Then what it learned is measured and kept."
        if self.state == "stopped" and self.run:
            cut = getattr(self.run, "stopped", None)
            at = f" after step {cut['step']} of {cut['of']}" if cut else ""
            return f"Stopped{at}. What it had learned is kept as {getattr(self.run, 'id', self.name)}."
        if self.state == "finished":
            return f"Finished: {self.rows[-1]['step']} steps." if self.rows else "Finished."
        return str(self.error) if isinstance(self.error, LabError) else f"{type(self.error).__name__}: {self.error}"

    def left(self) -> float | None:
        """Seconds until the last step, at the pace so far; None where that cannot be known."""
        if len(self.rows) < 2 or self.state != "running":
            return None
        first, last = self.rows[0], self.rows[-1]
        return (last["seconds"] - first["seconds"]) / max(1, last["step"] - first["step"]) * (last["of"] - last["step"])

    def picture(self) -> show.Html:
        """How far it came, its curves, and how its answers changed: what stands in a page that nobody clicks on."""
        took = [theme.duration(self.rows[-1]["seconds"])] if self.rows else []
        said = " · ".join([self.title, *took, self.said])
        top = show.Html(f'<div style="font-size:13px">{show.esc(said)}</div>', said)
        below = live.curves(self.name, self.rows), live.ways(self.samples)
        return show.together([top, *(part for part in below if part.html)])

    def stop(self) -> None:
        """End after the step at hand and keep what was learned. A second time changes nothing."""
        with self._lock:
            if self.state == "running":
                self.state = "stopping"
                self._stop.set()
        self._tell()

    def discard(self) -> None:
        """Give it up at once and keep nothing. Its thread ends at the next step; nobody waits for it."""
        if self.state in GOING:
            self._stop.abandon()
            self.error = Stopped("Stopped. Nothing of it is kept.")
            self._end("stopped", None)

    def wait(self) -> Any:
        """Join it; returns the run. An interrupt stops it as the button does, a second one gives it up.

        Raises Stopped where it was stopped (`run` is what is there), and what made it fail where it failed.
        """
        while not self._over.is_set():
            try:
                self._over.wait(0.2)
            except KeyboardInterrupt:
                self._interrupted()
        return self._outcome()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._joined().__await__()

    async def _joined(self) -> Any:
        while not self._over.is_set():
            try:
                await asyncio.sleep(0.05)  # meanwhile the kernel hears what is clicked
            except asyncio.CancelledError:  # how an interrupt reaches a cell that awaits
                self._interrupted()
        return self._outcome()

    def _interrupted(self) -> None:
        if self.state == "running":
            self.stop()
        else:
            self.discard()

    def _outcome(self) -> Any:
        if self.state == "finished":
            return self.run
        if self.state == "failed" and self.error:
            raise self.error
        raise Stopped(f"{self.title}: {self.said} What follows needs the whole run: start the training again.")

    def _go(self, work: Callable[..., Any]) -> None:
        try:
            run = work(stop=self._stop)
        except BaseException as error:  # whatever it is, it is said on the page and raised where the run is waited for
            self.error = self.error or error
            self._end("stopped" if isinstance(error, Stopped) else "failed", None)
            return
        cut = self._stop.is_set() and getattr(run, "stopped", True)  # asked too late, the run is whole
        self._end("stopped" if cut else "finished", run)

    def _end(self, state: str, run: Any) -> None:
        with self._lock:
            if self._over.is_set():  # given up: what comes late is nobody's
                return
            self.state, self.run = state, run
            self._over.set()
        self._tell()

    def _tell(self) -> None:
        for listen in list(self.listeners):
            with contextlib.suppress(Exception):  # a view that broke must not end a training
                listen()

    def take(self, row: dict[str, Any]) -> None:
        """One row of progress."""
        self.rows.append(self._counted(row))
        self._tell()

    def _hear(self, job: Job, row: dict[str, Any]) -> None:
        row = self._counted(row)
        due = row["step"] >= self._due or row["step"] == row["of"] or job.stopped
        if self.sample and job.policy is not None and due:
            self._due = row["step"] + max(1, (row["of"] - self._before) // SAMPLES)
            self.samples.append({"step": row["step"], "answers": answered(job)})
        self.rows.append(row)
        self._tell()

    def _counted(self, row: dict[str, Any]) -> dict[str, Any]:
        """Where steps begin anew (a second round, a second stage) they are counted on."""
        if self.rows and row["step"] + self._before < self.rows[-1]["step"]:
            self._before = self.rows[-1]["step"]
        return {**row, "step": row["step"] + self._before, "of": row["of"] + self._before}


def _claim(new: Background) -> None:
    """Start it, unless another training goes on."""
    global _now
    with _turn:
        if _now and _now.state not in GOING:
            _now.thread.join(LINGER)
        if _now and _now.thread.is_alive():
            doing = "is being trained in this kernel" if _now.state in GOING else "is still ending"
            raise LabError(f"{_now.id} {doing}: wait for it or press its Stop, then run this again.")
        _now = new
        new.thread.start()


def answered(job: Job) -> list[dict[str, Any]]:
    """What the model in training answers now to two validation prompts of different kinds: prompt, answer, gold.

    Nothing of the training changes by it: random states and the model's modes are put back.
    """
    from labkit import answers

    prompts = job.source.prompts("validation")
    chosen = [*prompts[:1], *[p for p in prompts if p.kind != prompts[0].kind][:1]]
    template = "{prompt}\n" if job.stage == "pretrain" else None
    with _untouched(job.policy):
        written = answers.write_answers(
            job, job.policy, job.tokenizer, chosen, author=job.name, seed=job.seed, template=template, n=1
        )
    graded = [(a, job.source.grade(a.prompt, a.text, ended=a.ended)[0]) for a, _, _ in written]
    return [{"prompt": a.prompt.text, "answer": a.text, "gold": gold} for a, gold in graded]


@contextlib.contextmanager
def _untouched(model: Any) -> Iterator[None]:
    import random

    import numpy as np
    import torch

    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    mine, theirs = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
            random.setstate(mine)
            np.random.set_state(theirs)
