"""Which page next: the pages that a command needs, in the graph's order, and who may run side by side.

Pure functions of literals, so that a test can say what two cores or four would do without running anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.stages import Node

START = "00_start_here"  # makes no run: it shows the ladder of the latest one, so it comes last

# About how long each stage takes next to the others (seconds of the recipe tiny); only the order of starts depends on it.
SECONDS = {
    "pretrain": 200, "sft": 105, "preferences": 20, "reward": 60, "ppo": 80, "dpo": 110, "kto": 65, "best_of_n": 55, "feedme": 40, "spin": 70,
    "critic": 62, "constitutional": 40, "ai_preferences": 15, "prompt_search": 20, "soft_prompt": 25, "rloo": 55, "dialogue": 38,
    "instruct": 38, "self_instruct": 45, "textbook": 35,
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """One notebook: the runs made on it, the pages it waits for, the cores it takes, and its length (rough seconds)."""

    name: str
    runs: tuple[str, ...]
    needs: tuple[str, ...]
    slots: int = 1
    seconds: float = 10.0


def select(graph: Mapping[str, Node], targets: Iterable[str] = ()) -> list[str]:
    """The runs to make for `targets` (all without any), in the graph's order.

    A run brings its parents, and a page is made whole: the controls that stand on it come along. Optional parents are
    used where they are finished and never asked for.
    """
    wanted: set[str] = set()
    todo = list(targets) or list(graph)
    while todo:
        name = todo.pop()
        if name in wanted:
            continue
        wanted.add(name)
        node = graph[name]
        todo += [] if node.optional else node.parents
        todo += [other for other, its in graph.items() if its.page == node.page]
    return [name for name in graph if name in wanted]


def pages(
    graph: Mapping[str, Node], runs: Iterable[str], *, threads: Mapping[str, int], jobs: int, start: bool = False
) -> dict[str, Page]:
    """The pages that make `runs`, by name, in the graph's order; `start` adds the page that shows them all, last.

    A page takes the largest number of `threads` among its runs, at most all `jobs`. Raises LabError where pages wait for
    each other.
    """
    runs = list(runs)
    names = list(dict.fromkeys(graph[r].page for r in runs))
    found: dict[str, Page] = {}
    for page in names:
        own = tuple(r for r in runs if graph[r].page == page)
        needs = {graph[p].page for r in own for p in graph[r].parents if graph[p].page in names} - {page}
        found[page] = Page(
            name=page,
            runs=own,
            needs=tuple(n for n in names if n in needs),
            slots=max(1, min(jobs, max(threads.get(r, 1) for r in own))),
            seconds=2.0 + sum(SECONDS.get(graph[r].stage, 10) for r in own),
        )
    if start:
        found[START] = Page(START, (), tuple(names))
    longest_paths(found)
    return found


def longest_paths(pages: Mapping[str, Page]) -> dict[str, float]:
    """Seconds from the start of each page to the end of the last page that waits for it."""
    known: dict[str, float] = {}

    def length(name: str, above: tuple[str, ...] = ()) -> float:
        if name in above:
            raise LabError(f"The graph goes in a circle: {' → '.join([*above, name])}. Mend labkit/stages/__init__.py.")
        if name not in known:
            after = [p.name for p in pages.values() if name in p.needs]
            known[name] = pages[name].seconds + max((length(a, (*above, name)) for a in after), default=0.0)
        return known[name]

    return {name: length(name) for name in pages}


def pick(pages: Mapping[str, Page], *, done: set[str], running: set[str], stopped: set[str], jobs: int) -> Page | None:
    """The page to start now: ready, fitting into the free cores, with the longest path behind it; None if there is none."""
    free = jobs - sum(pages[name].slots for name in running)
    paths = longest_paths(pages)
    ready = [
        page
        for name, page in pages.items()
        if name not in done | running | stopped and set(page.needs) <= done and page.slots <= free
    ]
    return max(ready, key=lambda page: paths[page.name], default=None)


def simulate(pages: Mapping[str, Page], jobs: int) -> tuple[float, int]:
    """Total seconds if every page took its rough seconds, and how many pages would run side by side at most."""
    now, width = 0.0, 0
    done: set[str] = set()
    ends: dict[str, float] = {}
    while len(done) < len(pages):
        while page := pick(pages, done=done, running=set(ends), stopped=set(), jobs=jobs):
            ends[page.name] = now + page.seconds
        width = max(width, len(ends))
        first = min(ends, key=lambda name: ends[name])
        now = ends.pop(first)
        done.add(first)
    return now, width
