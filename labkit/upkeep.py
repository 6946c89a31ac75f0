"""The outputs folder: who works in it, what an executed page was made from, and making runs anew."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import runs
from labkit.errors import LabError
from labkit.records import digest
from labkit.runs import Run

if TYPE_CHECKING:
    from labkit.lab import Lab
    from labkit.schedule import Page


def stamp(lab: Lab, page: Page, notebooks: Path) -> str | None:
    """What an executed page was made from: its notebook and its runs (all finished ones for a page that makes none).

    None while one of its runs is missing.
    """
    found = {n: lab.find(n) for n in page.runs} if page.runs else dict(lab.finished())
    if not all(found.values()):
        return None
    source = runs.sha256(notebooks / f"{page.name}.ipynb")
    return digest([source, sorted(run.id for run in found.values() if run)], 16)


def read_stamp(target: Path) -> str | None:
    """The stamp in an executed page; None for one that is not there or was cut short."""
    try:
        return json.loads(target.read_text(encoding="utf-8"))["metadata"]["labkit"]["stamp"]
    except (OSError, ValueError, KeyError):
        return None


def forget(lab: Lab, names: Iterable[str]) -> list[str]:
    """Remove the finished runs of this recipe under `names`, never votes; raises LabError before touching a pinned one."""
    found = [run for name in names if (run := lab.find(name))]
    for made in found:
        if runs.marks(made)["pinned"]:
            raise LabError(f"The run {made.id} is pinned: 'labkit runs unpin {made.id}' first, or leave out --fresh.")
    for made in found:
        (made.path / runs.MANIFEST).unlink()  # first: half-removed must not look finished
        shutil.rmtree(made.path)
    return [made.id for made in found]


def weights(outputs: Path, recipe: str | None = None) -> list[Run]:
    """The runs whose weights `labkit clean` would remove: those that have them and are not pinned."""
    found = [run for run in runs.every(outputs) if recipe is None or run.path.parent.name == recipe]
    return [run for run in found if (run.path / "model").is_dir() and not runs.marks(run)["pinned"]]


@contextlib.contextmanager
def sole(outputs: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the outputs folder: a second command says who works there, waits, and goes on."""
    import filelock

    lock, holder = filelock.FileLock(outputs / ".labkit.lock"), outputs / ".labkit.pid"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        who = holder.read_text().strip() if holder.exists() else "unknown"
        say(f"Another labkit command (process {who}) works in {outputs}: waiting for it to end. Ctrl-C stops waiting.")
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
