"""Tables on the terminal: the list of runs, two runs compared, the ladder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labkit import runs
from labkit.errors import LabError
from labkit.progress import ladder_lines, near
from labkit.runs import Run
from labkit.theme import duration

if TYPE_CHECKING:
    from labkit.lab import Lab
    from labkit.pipeline import Outcome


def pick(outputs: Path, name: str) -> Run:
    """The finished run whose id is `name` or alone starts with it; raises LabError for none or several."""
    found = [run for run in runs.every(outputs) if run.id.startswith(name)]
    exact = [run for run in found if run.id == name]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise LabError(f"There is no finished run '{name}': 'labkit runs' lists them.")
    listed = ", ".join(f"{run.path.parent.name}/{run.id}" for run in found[:6])
    raise LabError(f"'{name}' could be any of {listed}: write more of its id.")


def show_runs(outputs: Path) -> None:
    """All finished runs, oldest first."""
    table = Table(box=None, pad_edge=False)
    for column in ("run", "recipe", "changed", "finished", "seconds", "note"):
        table.add_column(column, justify="right" if column == "seconds" else "left", no_wrap=column == "run")
    found = list(runs.every(outputs))
    for run in found:
        facts, marks = run.manifest, runs.marks(run)
        changed = ", ".join(f"{k}={v}" for k, v in facts.get("overrides", {}).items())
        note = ("pinned " if marks["pinned"] else "") + ("cleaned " if facts.get("cleaned") else "") + marks["note"]
        row = (run.id, facts["recipe"], changed, facts["finished"][:16], duration(facts["seconds"]), note.strip())
        table.add_row(*(Text(str(cell)) for cell in row))
    if not found:
        raise LabError(f"There are no finished runs in {outputs}: 'labkit run' makes them.")
    Console(highlight=False, soft_wrap=True).print(table)


def show_comparison(first: Run, second: Run) -> None:
    """Two runs on the same prompts, one line an author."""
    from labkit import compare

    both = [first, second]
    joined = compare.join(both, score=None, reference=first.name)
    rows = joined.rows()
    table = Table(box=None, pad_edge=False)
    for column in ("", *(row["stage"] for row in rows)):
        table.add_column(Text(column), justify="right" if column else "left")
    for key in rows[0]:
        if key != "stage" and not key.endswith("_ci"):
            table.add_row(key, *(Text(f"{_cell(row[key])} {_cell(row.get(f'{key}_ci'), '')}".strip()) for row in rows))
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{joined.score or 'what needs no judge'} on {len(joined.prompts)} {joined.split} prompts, against {joined.reference}"
    )
    console.print(table)
    if joined.notice:
        console.print(joined.notice)


def show_graph() -> None:
    """Every run of the ladder: its name, its page, what it is made from, what it is."""
    from labkit import stages

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "page", "made from", "what it is"):
        table.add_column(column)
    for name, node in stages.GRAPH.items():
        table.add_row(
            name, node.page, "all that is finished" if node.optional else ", ".join(node.parents) or "–", node.about
        )
    Console(highlight=False, soft_wrap=True).print(table)


def show_outcome(lab: Lab, outcome: Outcome) -> None:
    """The last lines of `labkit run`: what was made, where it lies, and the ladder."""
    made, kept = len(outcome.made), len(outcome.kept)
    print(
        f"{made} pages made, {kept} stood already, {duration(outcome.seconds)}, at most {outcome.peak_mb} MB of memory."
    )
    print(f"pages:  {near(lab.home / 'notebooks')}")
    if outcome.report:
        print(f"report: {near(outcome.report)}")
        ladder = lab.home / "ladder.json"
        found = json.loads(ladder.read_text(encoding="utf-8")) if ladder.exists() else {}
        print(*ladder_lines(found.get("rows", []), found.get("score") or "gold"), sep="\n")


def _cell(value: object, absent: str = "–") -> str:
    if value is None:
        return absent
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"[{', '.join(_cell(v) for v in value)}]" if isinstance(value, (tuple, list)) else str(value)
