"""What the terminal shows while pages run: a line a page that keeps moving, then one line when it is done.

On a terminal the lines redraw themselves; in a log file a plain line comes every quarter of a minute. Nothing here decides
anything: the numbers are read from the metrics that the runs write anyway.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.table import Table

from labkit import runs
from labkit.theme import duration

QUIET = 15.0  # seconds between plain lines where there is no terminal
SAMPLE = 2.0  # seconds between two looks at the memory


def near(path: Path) -> Path:
    """The path as the person would type it: relative to where they stand, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def newest(folder: Path, names: Iterable[str], *, since: float) -> tuple[str, dict[str, Any]] | None:
    """The last metrics row of the run being made under one of `names`: its name and the row; None before the first one.

    A run is being made when its folder has metrics but no manifest; `since` (seconds of the epoch) leaves out what a killed
    attempt left there.
    """
    found: list[tuple[float, str, Path]] = []
    for name in names:
        for file in folder.glob(f"{name}-??????/metrics.jsonl"):
            if not (file.parent / runs.MANIFEST).exists() and (changed := file.stat().st_mtime) >= since:
                found.append((changed, name, file))
    if not found:
        return None
    _, name, file = max(found)
    with open(file, "rb") as f:
        f.seek(max(0, file.stat().st_size - 4096))
        lines = f.read().decode("utf-8", errors="replace").splitlines()
    for line in reversed(lines):  # the last one may be half-written
        try:
            return name, json.loads(line)
        except ValueError:
            continue
    return None


def describe(name: str, row: Mapping[str, Any]) -> str:
    """One row of metrics in a line: `ppo 12/40 · loss 0.42 · reward 1.31 · 1 min 20 s left`."""
    step, of, seconds = row.get("step", 0), row.get("of", 0), row.get("seconds", 0.0)
    parts = [f"{name} {step}/{of}"]
    shown = [key for key in row if key.endswith(("/loss", "/reward", "/accuracy"))][:2]
    parts += [f"{key.split('/')[-1]} {row[key]:.3g}" for key in shown]
    if 0 < step < of:
        parts.append(f"{duration(seconds / step * (of - step))} left")
    return " · ".join(parts)


def tree_mb() -> int:
    """Memory of this process and all below it, in MB; shared pages are counted once where the system tells (Linux)."""
    total = 0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
        except psutil.Error:  # it ended while we looked
            continue
    return total // 2**20


class Progress:
    """Lines on the terminal for the pages of one command; a context manager."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.folder = folder
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.peak_mb = 0
        self._pages: dict[str, tuple[tuple[str, ...], float]] = {}
        self._said: dict[str, tuple[float, str]] = {}
        self._sampled = 0.0
        self._live = (
            Live(console=self.console, transient=True, auto_refresh=False) if self.console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def begin(self, page: str, names: tuple[str, ...]) -> None:
        self._pages[page] = (names, time.time())
        self._said[page] = (time.monotonic(), "")

    def end(self, page: str, *, failed: bool = False) -> float:
        """Say how the page ended; returns its seconds."""
        _, started = self._pages.pop(page)
        seconds = time.time() - started
        self.say(f"{'✗' if failed else '✓'} {page}  {duration(seconds)}")
        self.tick()
        return seconds

    def tick(self) -> None:
        """Redraw, and look at the memory now and then. Called a few times a second."""
        if time.monotonic() - self._sampled > SAMPLE:
            self._sampled = time.monotonic()
            self.peak_mb = max(self.peak_mb, tree_mb())
        lines = {page: self._line(names, started) for page, (names, started) in self._pages.items()}
        if self._live:
            table = Table.grid(padding=(0, 2))
            for page, line in lines.items():
                table.add_row("…", page, line)
            self._live.update(table, refresh=True)
            return
        for page, line in lines.items():
            when, said = self._said[page]
            if line != said and time.monotonic() - when > QUIET:
                self._said[page] = (time.monotonic(), line)
                self.say(f"… {page}  {line}")

    def _line(self, names: tuple[str, ...], started: float) -> str:
        found = newest(self.folder, names, since=started)
        return describe(*found) if found else f"{duration(time.time() - started)} so far"


def ladder_lines(rows: Iterable[Mapping[str, Any]], score: str = "gold") -> list[str]:
    """The ladder as text, a line a model: gold (or what `score` says stood in for it) with its interval, wins over SFT, refusals; dashes where it is not known."""

    def number(row: Mapping[str, Any], key: str) -> str:
        value = row.get(key)
        return f"{value:.2f}" if isinstance(value, (int, float)) else "–"

    lines = [f"{'':14}{score:>7}  {'95 % interval':16}{'wins over SFT':>14}{'refuses harm':>14}"]
    for row in rows:
        if row.get("gold") is None and row.get("win_over_sft") is None:
            continue
        low, high = row.get("gold_ci") or (None, None)
        interval = f"[{low:.2f}, {high:.2f}]" if low is not None and high is not None else "–"
        name = str(row.get("name") or row.get("stage") or row.get("run"))
        lines.append(
            f"{name:14}{number(row, 'gold'):>7}  {interval:16}{number(row, 'win_over_sft'):>14}{number(row, 'refuse_harm'):>14}"
        )
    return lines
