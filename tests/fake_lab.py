"""A lab of four small pages whose runs are empty folders, to test the pipeline in seconds and without torch.

a ──► b ──► d        every page writes when it began and ended into its run, so that a test can see what ran beside what
 └──► c ──┘
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from labkit import runs
from labkit.runs import Run
from labkit.stages import Node

GRAPH = {
    "a": Node((), "01_a", "a", "the first"),
    "b": Node(("a",), "02_b", "b", "one side"),
    "c": Node(("a",), "03_c", "c", "the other side"),
    "d": Node(("b", "c"), "04_d", "d", "the last"),
}
PARAMETERS = 'recipe: str = "tiny"\noverrides: dict = {}\noutputs: str = "outputs"'
MAKE = """
import json, os, pathlib, time
assert "leftover" not in globals(), "the page before left something behind"
leftover, began = "here", time.time()
folder = pathlib.Path(outputs).resolve() / recipe / "{name}-000000"
folder.mkdir(parents=True, exist_ok=True)
(folder / "metrics.jsonl").write_text(json.dumps({{"step": 1, "of": 4, "seconds": 0.5, "train/loss": 1.5}}) + "\\n")
time.sleep({seconds})
facts = {{"began": began, "ended": time.time(), "pid": os.getpid(), "cwd": os.getcwd(), "overrides": overrides}}
facts |= {{"id": folder.name, "name": "{name}", "recipe": recipe, "seconds": 1.0, "finished": "2026-01-01T00:00", "files": {{}}}}
(folder / "run.json").write_text(json.dumps(facts))
"""


class FakeRecipe(SimpleNamespace):
    """Sections by name: what the pipeline asks of a recipe."""

    def __getitem__(self, section: str) -> Any:
        shared = {"data": SimpleNamespace(source="world"), "model": SimpleNamespace(path="")}
        return shared.get(section) or SimpleNamespace(threads=self.threads.get(section, 1))


class FakeLab:
    """Finds runs in their folders as the real lab does; their ids never change."""

    def __init__(self, outputs: Path, *, threads: Mapping[str, int] | None = None) -> None:
        self.recipe = FakeRecipe(name="fake", overrides={"a.x": 1}, threads=threads or {})
        self.outputs = outputs
        self.folder = self.home = outputs / "fake"
        self.home.mkdir(parents=True, exist_ok=True)

    def find(self, name: str) -> Run | None:
        return runs.find(self.folder, f"{name}-000000")

    def finished(self) -> dict[str, Run]:
        return {name: run for name in GRAPH if (run := self.find(name))}


def page(folder: Path, name: str, *cells: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook with the parameters cell and `cells`."""
    folder.mkdir(parents=True, exist_ok=True)
    book = new_notebook(
        cells=[new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, cells)]
    )
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def make(name: str, seconds: float = 0.0) -> str:
    """The cell that makes the run `name`."""
    return MAKE.format(name=name, seconds=seconds)


def pages(folder: Path, *, seconds: float = 0.0) -> Path:
    """All pages of the fake graph, and the one that comes last."""
    for name, node in GRAPH.items():
        page(folder, node.page, make(name, seconds))
    page(folder, "00_start_here", "print('the ladder')")
    return folder


def write_report(lab: FakeLab, *, runs: dict[str, Run]) -> Path:
    """Stands for labkit.report.write: how often it was called can be read from the file."""
    target = lab.home / "report.html"
    before = json.loads(target.read_text()) if target.exists() else []
    target.write_text(json.dumps([*before, sorted(runs)]))
    return target
