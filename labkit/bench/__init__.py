"""`labkit bench`: speed as ratios, each measured within one run by taking turns (A B A B ...), so that a busy machine is
as unkind to one side as to the other.

    labkit bench                           everything that needs nothing else
    labkit bench sampling ppo --trl-python PATH   PATH is the python of an environment with TRL 1.12, which still has PPO

A ratio above 1 means that the lab's side (A) is faster. The table is printed and written to `outputs/bench.json`.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from labkit.errors import LabError


@dataclass
class Turns:
    """Two sides measured in turns. Values are costs in `unit`, the smaller the better; the ratio is B / A of each
    turn.
    """

    what: str
    a: str
    b: str
    unit: str
    values: list[tuple[float, float]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Minimum, median and maximum of both sides and of their ratio."""
        sides = {"a": [a for a, _ in self.values], "b": [b for _, b in self.values]}
        sides["ratio"] = [b / a for a, b in self.values]
        found = {k: [round(f(v), 5) for f in (min, statistics.median, max)] for k, v in sides.items()}
        names = {"what": self.what, "side_a": self.a, "side_b": self.b, "unit": self.unit}
        return {**names, "turns": len(self.values), **found, **self.notes}


def take_turns(turns: Turns, a: Callable[[], float], b: Callable[[], float], *, rounds: int) -> Turns:
    """One turn each that is not counted, then `rounds` that are; `a` and `b` return their cost."""
    for n in range(rounds + 1):
        pair = (a(), b())
        if n:
            turns.values.append(pair)
    return turns


def seconds(work: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long `work` takes by the wall's clock, or by `time.process_time`: this process's own seconds on a core."""
    start = clock()
    work()
    return clock() - start


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("what", nargs=-1, type=click.Choice(["sampling", "ppo", "pretrain", "page", "import"]))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Turns that count.")
@click.option("--model", type=click.Path(exists=True, path_type=Path), help="A model folder; none: random weights.")
@click.option("--trl-python", metavar="PATH", help="Python of an environment with TRL 1.12.0, for `ppo`.")
@click.option("--outputs", default="outputs", show_default=True, metavar="DIR", help="Where bench.json goes.")
def _bench(what: tuple[str, ...], rounds: int, model: Path | None, trl_python: str | None, outputs: str) -> None:
    """Measure sampling against generate, PPO against TRL 1.12's, pretraining's threads, a page, and the time to the first help."""
    from labkit import pipeline, runs

    os.environ.setdefault(*pipeline.SPIN)  # as pages have it; torch reads it when it is first imported
    from labkit.bench import against, start_up, threads

    if "ppo" in what and not trl_python:
        raise LabError(
            "TRL removed its PPO in 1.13: make an environment with 'python3 -m venv trl112' and "
            "'trl112/bin/pip install trl==1.12.0 -c constraints.txt' (its line for trl taken out), "
            "and give --trl-python trl112/bin/python."
        )
    measures: dict[str, Callable[[], Turns]] = {
        "import": lambda: start_up.imports(rounds),
        "pretrain": lambda: threads.turns(rounds),
        "page": lambda: start_up.page(rounds),
        "sampling": lambda: against.sampling_turns(rounds, model),
        "ppo": lambda: against.ppo_turns(rounds, str(trl_python), model),
    }
    chosen = what or [m for m in measures if m != "ppo" or trl_python]
    rows = []
    for name in chosen:
        click.echo(f"{name} ...", err=True)
        rows.append(measures[name]().row())
    file = Path(outputs) / "bench.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    runs.write(file, json.dumps(rows, indent=1))
    show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    """A line a side, and the ratio under them."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "unit", *(f"{m}" for m in ("min", "median", "max")), box=None, pad_edge=False)
    for row in rows:
        for side in ("a", "b"):
            table.add_row(f"{row['what']}: {row[f'side_{side}']}", row["unit"], *(f"{v:.4g}" for v in row[side]))
        table.add_row("  ratio", "b / a", *(f"{v:.2f}" for v in row["ratio"]))
    Console(highlight=False, soft_wrap=True).print(table)


def main(args: list[str]) -> int:
    """The command; returns 0, raises LabError and click's exceptions."""
    _bench.main(args, prog_name="labkit bench", standalone_mode=False)
    return 0
