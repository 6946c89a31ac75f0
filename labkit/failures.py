"""A failed page in one sentence: which page, which cell, why, where it lies, and how to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from labkit.errors import LabError
from labkit.progress import near
from labkit.schedule import Page


def sentence(error: BaseException, page: Page, target: Path, *, again: str) -> str:
    """What a person reads when `page` failed with `error`; `target` is the executed page, saved with its error."""
    where, why, then = "", f"{type(error).__name__}: {_line(error)}", "When that is mended"
    if isinstance(error, PapermillExecutionError):
        where = _cell(target, error.source)
        why = error.evalue if error.ename == "LabError" else f"{error.ename}: {_line(error.evalue)}"
    elif isinstance(error, DeadKernelError):
        where = _cell(target, None)
        why = _death(target)
        then = "With memory freed, or with --jobs 1"
    elif isinstance(error, LabError):
        why = str(error)
    kept = f" The page with its error: {near(target)}." if target.exists() else ""
    return f"Page {page.name} stopped{where}. {why.rstrip('.')}.{kept} {then}, the same command goes on: {again}"


def _cells(target: Path) -> list[Any]:
    import nbformat

    return [c for c in nbformat.read(target, as_version=4).cells if c.cell_type == "code" and c.source.strip()]


def _cell(target: Path, source: str | None) -> str:
    """` in cell 7 (run = lab.run("ppo"))`, counted as Jupyter counts, from the executed page."""
    for number, cell in enumerate(_cells(target), 1):
        failed = cell.source == source if source is not None else cell.metadata.get("papermill", {}).get("exception")
        if failed:
            first = next(line for line in cell.source.splitlines() if line.strip())
            return f" in cell {number} ({first.strip()[:60]})"
    return ""


def _death(target: Path) -> str:
    errors = [o.evalue for c in _cells(target) for o in c.outputs if o.output_type == "error"]
    return errors[-1] if errors else "The kernel died before the first cell"


def _line(error: object) -> str:
    """The first line that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
