"""The golden path as one call: run the pages that a command needs, side by side where the graph allows, then the report.

Pages are notebooks; papermill runs them in warm kernels. A page whose runs are finished and whose executed copy was made
from the same notebook is left alone, so the same command goes on where a killed one stopped, and a second one is instant.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import recipe as recipes
from labkit import runs, schedule, stages, upkeep
from labkit.errors import LabError
from labkit.progress import Progress
from labkit.records import digest
from labkit.schedule import Page

if TYPE_CHECKING:
    from labkit.kernel import Pool
    from labkit.lab import Lab
    from labkit.runs import Run
    from labkit.stages import Node

ROOT = Path(__file__).resolve().parent.parent  # an editable install: the notebooks stand beside the package
NOTEBOOKS = ROOT / "notebooks"
REPORT = "report"
SPIN = (
    "GOMP_SPINCOUNT",
    "10000",
)  # torch's threads that spin long for each other collapse when another process wants a core


@dataclass
class Outcome:
    """What a command did: pages made (with seconds) and left alone, the report, its own seconds and memory."""

    made: dict[str, float] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    report: Path | None = None
    seconds: float = 0.0
    peak_mb: int = 0


def run(
    lab: Lab,
    targets: Iterable[str] = (),
    *,
    jobs: int = 0,
    fresh: bool = False,
    cold: bool = False,
    recipe: str | None = None,
    again: str = "labkit run",
    graph: Mapping[str, Node] = stages.GRAPH,
    notebooks: Path = NOTEBOOKS,
    report: Callable[..., Path] | None = None,
    warm_up: str | None = None,
) -> Outcome:
    """Make the runs in `targets` (names of the graph, and "report"; none: everything) and what they need.

    `jobs` cores (0: all of this machine), `fresh` makes the runs again, `cold` gives each page a new kernel. `recipe` is what
    the pages are told (a name or an absolute path), `again` the command that a message suggests. Raises LabError after the
    last page that could run, when one failed.
    """
    targets = list(dict.fromkeys(targets))
    for target in targets:
        recipes._known(target, [*graph, REPORT], "stage")
    chosen = [t for t in targets if t != REPORT]
    names = schedule.select(graph, chosen) if chosen or not targets else []
    for target in chosen:
        if not stages.asked_for(target, lab.recipe):
            raise LabError(f"{target} is not part of this recipe's ladder: -p compare.judge=reward_model asks for it.")
    names = [name for name in names if stages.asked_for(name, lab.recipe)]
    jobs = jobs or cores()
    threads = {name: getattr(lab.recipe[graph[name].stage], "threads", 1) for name in names}
    pages = schedule.pages(graph, names, threads=threads, jobs=jobs, start=not targets)
    for page in pages:
        if not (notebooks / f"{page}.ipynb").is_file():
            raise LabError(f"The page {page}.ipynb is missing in {notebooks}: restore it, it makes {', '.join(names)}.")
    outcome, started = Outcome(), time.monotonic()
    with Progress(lab.folder) as progress, upkeep.sole(lab.outputs, progress.say):
        if fresh:
            upkeep.forget(lab, names)
        parameters = {
            "recipe": recipe or lab.recipe.name,
            "overrides": dict(lab.recipe.overrides),
            "outputs": _short(lab.outputs),
        }
        work = _Work(lab, pages, notebooks, parameters, jobs, cold, warm_up, again, progress, outcome)
        work.go()
        if outcome.failed:
            raise LabError("\n".join(outcome.failed.values())) from work.errors[0]
        if not targets or REPORT in targets:
            outcome.report = write_report(lab, report, again=bool(REPORT in targets))
        progress.tick()
        outcome.seconds, outcome.peak_mb = time.monotonic() - started, progress.peak_mb
    return outcome


@dataclass
class _Work:
    """The loop that starts pages as cores and parents allow, until none is left or none can run."""

    lab: Lab
    pages: dict[str, Page]
    notebooks: Path
    parameters: dict[str, Any]
    jobs: int
    cold: bool
    warm_up: str | None
    again: str
    progress: Progress
    outcome: Outcome
    errors: list[Exception] = field(default_factory=list)
    pool: Pool | None = None

    def go(self) -> None:
        done: set[str] = set()
        running: dict[Future[Any], str] = {}
        threads = ThreadPoolExecutor(max_workers=max(1, len(self.pages)))
        try:
            while len(done) + len(self.outcome.failed) < len(self.pages):
                now = set(running.values())
                failed = set(self.outcome.failed)
                while page := schedule.pick(self.pages, done=done, running=now, stopped=failed, jobs=self.jobs):
                    if self._kept(page):
                        self.outcome.kept.append(page.name)
                        done.add(page.name)
                        continue
                    self._kernels(done)
                    self.progress.begin(page.name, page.runs)
                    running[threads.submit(self._make, page)] = page.name
                    now.add(page.name)
                if not running:
                    return  # what is left waits for a page that failed
                for future in wait(running, timeout=0.25, return_when=FIRST_COMPLETED).done:
                    self._ended(future, self.pages[running.pop(future)], done)
                self.progress.tick()
        finally:
            if self.pool:
                self.pool.close()  # a page that still runs ends with its kernel
            threads.shutdown(cancel_futures=True)

    def _kept(self, page: Page) -> bool:
        made = upkeep.stamp(self.lab, page, self.notebooks)
        return made is not None and made == upkeep.read_stamp(self._target(page))

    def _kernels(self, done: set[str]) -> None:
        """Start the kernels before the first page that runs, as many as will ever be busy at once."""
        if self.pool is None:
            from labkit import kernel

            left = {
                n: Page(p.name, p.runs, tuple(x for x in p.needs if x not in done), p.slots, p.seconds)
                for n, p in self.pages.items()
                if n not in done
            }
            _, width = schedule.simulate(left, self.jobs)
            warm_up = kernel.WARM_UP if self.warm_up is None else self.warm_up
            self.pool = kernel.Pool(
                width, cwd=self.notebooks.parent, env=environment(self.lab), warm_up=warm_up, cold=self.cold
            )
            self.pool.start()

    def _target(self, page: Page) -> Path:
        return self.lab.home / "notebooks" / f"{page.name}.ipynb"

    def _make(self, page: Page) -> Any:
        """Run the page, in a thread of its own; returns the executed notebook."""
        from labkit import kernel

        assert self.pool is not None
        target = self._target(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.pool.kernel() as warm:
            return kernel.execute(
                self.notebooks / f"{page.name}.ipynb", target, parameters=self.parameters, kernel=warm
            )

    def _ended(self, future: Future[Any], page: Page, done: set[str]) -> None:
        try:
            self._seal(page, future.result())
        except Exception as error:  # whatever stopped a page is said in its sentence
            from labkit import failures

            self.outcome.failed[page.name] = failures.sentence(error, page, self._target(page), again=self.again)
            self.errors.append(error)
            self.progress.end(page.name, failed=True)
            return
        self.outcome.made[page.name] = self.progress.end(page.name)
        done.add(page.name)

    def _seal(self, page: Page, executed: Any) -> None:
        """Write into the executed page what it was made from, so that it is known to be whole."""
        made = upkeep.stamp(self.lab, page, self.notebooks)
        if made is None:
            missing = [name for name in page.runs if not self.lab.find(name)]
            raise LabError(
                f"The page ran to its end and did not make {', '.join(missing)}: it must call lab.run for each."
            )
        executed.metadata["labkit"] = {"stamp": made}
        runs.write(self._target(page), json.dumps(executed, indent=1, ensure_ascii=False))


def write_report(lab: Lab, write: Callable[..., Path] | None = None, *, again: bool = True) -> Path:
    """Join what is finished and write report.html and ladder.json beside the runs.

    Without `again` a report that stands for the same runs is left alone.
    """
    found: dict[str, Run] = lab.finished()
    if not found:
        raise LabError(f"There is no finished run of {lab.recipe.name} to report on: 'labkit run' makes them.")
    mark, now = lab.home / ".report", digest([run.id for run in found.values()], 16)
    target = lab.home / "report.html"
    if not again and target.exists() and mark.exists() and mark.read_text() == now:
        return target
    if write is None:
        from labkit.report import write as write_html

        write = write_html
    target = write(lab, runs=found)
    runs.write(mark, now)
    return target


def environment(lab: Lab) -> dict[str, str]:
    """What the kernels' environment holds: the same hashing in every process, and no network for the embedded world."""
    env = {**os.environ, "PYTHONHASHSEED": "0", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    env |= {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    env.setdefault(*SPIN)
    env.pop("JPY_SESSION_NAME", None)  # started from a page's terminal or cell: these kernels have no page all the same
    if lab.recipe["data"].source == "world" and not lab.recipe["model"].path:
        env["HF_HUB_OFFLINE"] = "1"
    return env


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _short(outputs: Path) -> str:
    """The outputs folder as the pages are told it: relative to the project where it lies inside."""
    return outputs.relative_to(ROOT).as_posix() if outputs.is_relative_to(ROOT) else str(outputs)
