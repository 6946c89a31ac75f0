"""The lab: a recipe, a folder of runs, and the plumbing that every stage shares (seed, device, logging, manifest).

`lab.run("dpo")` returns the finished run, or makes it. A run's id is the run's name with six hex digits over everything that
it depends on: the same choices find the same run, a changed number re-runs exactly what it touches.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit import recipe as recipes
from labkit import runs, stages
from labkit.errors import LabError
from labkit.job import Job, Stop, Stopped
from labkit.recipe import Recipe, Settings
from labkit.records import Vote, digest, write_jsonl
from labkit.runs import Run

if TYPE_CHECKING:
    from labkit.feedback.store import VoteStore
    from labkit.sources import Source


class Model(Settings):
    """The model that everything starts from."""

    path: str = Field("", description="hub id, local folder or GGUF file of a pretrained model; empty: random weights")
    hidden: int = Field(96, ge=8, description="width d of the embedded model (with random weights only)")
    layers: int = Field(3, ge=1, description="transformer blocks")
    heads: int = Field(4, ge=1, description="attention heads; hidden must divide by it")
    intermediate: int = Field(256, ge=8, description="width of the feed-forward layer")
    vocabulary: int = Field(2048, ge=64, description="BPE tokens, learned from the web text")
    context: int = Field(256, ge=32, description="longest prompt and answer together, in tokens")
    lora: int = Field(0, ge=0, description="rank of LoRA adapters in every tuning stage; 0 trains all weights")
    dtype: str = Field(
        "float32", pattern="^(float32|bfloat16)$", description="precision of the weights; bfloat16 on a GPU"
    )
    device: str = Field(
        "auto", pattern="^(auto|cpu|cuda|mps)$", description="where it runs; auto takes a GPU if there is one"
    )


class Votes(Settings):
    """Where judgements are kept."""

    address: str = Field("", description="SQLAlchemy address; empty: votes.sqlite in the outputs folder")


class Answering(Settings):
    """How every model answers the evaluation prompts."""

    n: int = Field(2, ge=1, description="answers to each evaluation prompt")
    max_tokens: int = Field(48, ge=4, description="longest answer, in tokens")
    temperature: float = Field(1.0, gt=0, description="1: the model's own distribution, for which KL is defined")
    batch: int = Field(256, ge=1, description="answers written side by side")
    bootstrap: int = Field(2000, ge=100, description="resamples of prompts behind every interval")


@dataclass(frozen=True)
class Plan:
    """What a run would be: its id, its parents (finished or not), and the votes it would use."""

    name: str
    id: str
    settings: Settings
    parents: dict[str, Plan]
    votes: list[Vote] | None


class Lab:
    """One recipe in one outputs folder."""

    def __init__(self, recipe: Recipe, outputs: str | Path = "outputs") -> None:
        self.recipe = recipe
        here = (
            Path.cwd()
        )  # JupyterLab starts a kernel in the notebook's folder; its outputs lie one above, as papermill's do
        self.outputs = ((here.parent if here.name == "notebooks" else here) / outputs).resolve()
        self.folder = self.outputs / recipe.name
        self.home = self.folder / "variants" / recipe.variant if recipe.variant else self.folder
        self.listeners: list[Any] = []
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            probe = self.home / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise LabError(
                f"Cannot write to {self.home} ({error.strerror}): choose another folder with --outputs."
            ) from error

    @classmethod
    def open(
        cls, recipe: str = "tiny", overrides: dict[str, Any] | None = None, *, outputs: str | Path = "outputs"
    ) -> Lab:
        """The lab of a recipe (a name or a YAML file) with overrides such as `{"dpo.beta": 0.3}`."""
        return cls(recipes.load(recipe, overrides, sections=stages.sections()), outputs)

    @cached_property
    def source(self) -> Source:
        """Where text, prompts and demonstrations come from: the embedded world, or data sets."""
        from labkit import sources

        return sources.open_source(self.recipe["data"], seed=self.recipe.seed)

    @cached_property
    def votes(self) -> VoteStore:
        """The durable store of every judgement."""
        from labkit.feedback.store import VoteStore

        address = self.recipe["votes"].address
        return VoteStore(address or f"sqlite:///{self.outputs / 'votes.sqlite'}")

    def plan(self, name: str, known: dict[str, Plan] | None = None) -> Plan:
        """What the run called `name` would be under this recipe; nothing is made. `known` plans are taken as they are."""
        known = {} if known is None else known
        if name not in known:
            known[name] = self._plan(name, known)
        return known[name]

    def _plan(self, name: str, known: dict[str, Plan]) -> Plan:
        if name not in stages.GRAPH:
            recipes._known(name, stages.GRAPH, "run")
        node = stages.GRAPH[name]
        stage = stages.module(node.stage)
        settings = stages.settings(node, self.recipe[node.stage])
        parents = {p: self.plan(p, known) for p in node.parents}
        if node.optional:
            parents = {n: p for n, p in parents.items() if runs.find(self.folder, p.id)}
        votes = None
        maker = next((p for n, p in parents.items() if stages.GRAPH[n].stage in stages.VOTE_MAKERS), None)
        if getattr(stage, "READS_VOTES", False) and maker:
            votes = self.votes.votes(run=maker.id)
        shared = {s: self.recipe[s].model_dump(mode="json", exclude={"bootstrap"}) for s in ("model", "answers")}
        identity = {
            "name": name,
            "version": stage.VERSION,
            "settings": settings.model_dump(mode="json"),
            **shared,
            "seed": self.recipe.seed,
            "source": self.source.digest(),
            "parents": {n: p.id for n, p in parents.items()},
            "votes": digest([v.id for v in votes], 12) if votes is not None else None,
        }
        if hasattr(stage, "reads"):  # a file that the settings name: its content counts, not where it lies
            identity["reads"] = stage.reads(settings)
        return Plan(name, f"{name}-{digest(identity)}", settings, parents, votes)

    def find(self, name: str) -> Run | None:
        """The finished run of that name under this recipe, or None."""
        return runs.find(self.folder, self.plan(name).id)

    def finished(self) -> dict[str, Run]:
        """All finished runs of this recipe by name, in the graph's order."""
        known: dict[str, Plan] = {}
        found = {name: runs.find(self.folder, self.plan(name, known).id) for name in stages.GRAPH}
        return {name: run for name, run in found.items() if run}

    def run(self, name: str, *, listen: Callable[..., None] | None = None, stop: Stop | None = None) -> Run:
        """The finished run; made now if it is not there yet.

        Raises LabError when a parent is missing: every page makes its own runs and no other's. `listen` takes the place of
        the lab's listeners. With `stop` set while the run is made, it ends soon and what it had come to is returned, with
        `stopped` saying where; an abandoned one raises Stopped and leaves nothing.
        """
        plan = self.plan(name)
        if run := runs.find(self.folder, plan.id):
            return run
        parents: dict[str, Run] = {}
        for parent, its in plan.parents.items():
            found = runs.find(self.folder, its.id)
            if not found:
                page = stages.GRAPH[parent].page
                raise LabError(
                    f"{name} needs the run {its.id}, which is not there: run page {page}, or 'labkit run {parent}'."
                )
            parents[parent] = found
        stop = stop or Stop()
        with _turn(self.folder / f".{plan.id}.lock", stop):
            if run := runs.find(self.folder, plan.id):
                return run
            try:
                return self._make(plan, parents, list(self.listeners) if listen is None else [listen], stop)
            finally:
                _release()

    def _make(self, plan: Plan, parents: dict[str, Run], listeners: list[Any], stop: Stop) -> Run:
        stage = stages.module(stages.GRAPH[plan.name].stage)
        started, clock = datetime.now(UTC), time.monotonic()
        with _full_disk(self.folder):
            folder = runs.start(self.folder, plan.id)
            (folder / "recipe.yaml").write_text(self.recipe.dump(), encoding="utf-8")
            if plan.votes is not None:
                write_jsonl(folder / "votes.jsonl", plan.votes)
            job = Job(
                self, plan.name, plan.id, plan.settings, folder, parents, plan.votes or [], listeners=listeners, stop=stop
            )  # fmt: skip
            try:
                job.prepare()
                stage.run(job)
                job.check()
            except Stopped:
                job.close()
                shutil.rmtree(folder)
                raise
            job.close()
            manifest = self._manifest(plan, parents, job) | {
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - clock, 2),
            }
            if job.stopped:
                return runs.finish_stopped(folder, manifest, **job.stopped)
            return runs.finish(folder, manifest)

    def _manifest(self, plan: Plan, parents: dict[str, Run], job: Job) -> dict[str, Any]:
        """What is known of a run, but its times. The cost of one that was stopped is left out: stages count it beforehand."""
        node = stages.GRAPH[plan.name]
        return {
            "id": plan.id,
            "name": plan.name,
            "stage": node.stage,
            "version": stages.module(node.stage).VERSION,
            "about": node.about,
            "recipe": self.recipe.name,
            "recipe_digest": self.recipe.digest,
            "overrides": dict(self.recipe.overrides),
            "seed": self.recipe.seed,
            "settings": plan.settings.model_dump(mode="json"),
            "model": self.recipe["model"].model_dump(mode="json"),
            "source": self.source.name,
            "parents": {n: r.id for n, r in parents.items()},
            "votes": len(plan.votes) if plan.votes is not None else None,
            "votes_digest": digest([v.id for v in plan.votes], 12) if plan.votes is not None else None,
            "cost": {} if job.stopped else job.cost,
            "summary": job.summary,
            "phases": {k: round(v, 2) for k, v in job.phases.items()},
            "peak_mb": _peak_mb(),
            "versions": {p: version(p) for p in ("torch", "transformers", "trl", "labkit")},
            "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        }


@contextlib.contextmanager
def _turn(file: Path, stop: Stop) -> Any:
    """Hold a run's lock: of two kernels that want the same run, the second waits until the first has made it."""
    import filelock

    lock = filelock.FileLock(file)
    try:
        lock.acquire(cancel_check=stop.is_set)
    except filelock.Timeout as error:
        raise Stopped("It was stopped while another kernel was making the same run: ask for it again.") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _full_disk(folder: Path) -> Any:
    try:
        yield
    except Exception as error:  # safetensors reports a full disk as an error of its own
        if getattr(error, "errno", None) == 28 or "No space left" in str(error):
            raise LabError(
                f"The disk that holds {folder} is full: free some space ('labkit clean' helps) and run again."
            ) from error
        raise


def _release() -> None:
    """Give a stage's memory back: trainers hang in cycles, and the next stage of the page would come on top of them."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps what was freed unless it is asked
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _peak_mb() -> int:
    """Peak resident memory of this process, in MB (0 where the system does not say)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
