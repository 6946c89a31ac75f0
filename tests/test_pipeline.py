"""The pipeline on a graph of four small pages: order, side by side, going on, and every way to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fake_lab
import nbformat
import psutil
import pytest
from fake_lab import GRAPH, FakeLab, make, page, pages

from labkit import pipeline, progress, runs, upkeep
from labkit.errors import LabError
from labkit.pipeline import Outcome


def go(lab: FakeLab, books: Path, *targets: str, **options: Any) -> Outcome:
    settings = {"jobs": 2, "graph": GRAPH, "warm_up": "", "report": fake_lab.write_report, "again": "labkit run"}
    return pipeline.run(lab, targets, notebooks=books, **{**settings, **options})


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return pages(tmp_path / "notebooks")


@pytest.fixture
def lab(tmp_path: Path) -> FakeLab:
    return FakeLab(tmp_path / "outputs")


def facts(lab: FakeLab) -> dict[str, dict]:
    return {name: run.manifest for name, run in lab.finished().items()}


def test_the_whole_graph_then_nothing_left_to_do(lab: FakeLab, tmp_path: Path) -> None:
    """b and c run beside each other, in two kernels, between a and d; a second command makes nothing and is quick."""
    books = pages(tmp_path / "notebooks", seconds=0.4)
    outcome = go(lab, books)
    names = [n.page for n in GRAPH.values()]
    assert sorted(outcome.made) == sorted([*names, "00_start_here"]) and not outcome.kept
    made = facts(lab)
    assert made["a"]["ended"] < min(made["b"]["began"], made["c"]["began"])
    assert made["b"]["began"] < made["c"]["ended"] and made["c"]["began"] < made["b"]["ended"]
    assert made["b"]["pid"] != made["c"]["pid"] and {m["pid"] for m in made.values()} == {
        made["b"]["pid"],
        made["c"]["pid"],
    }
    assert {m["cwd"] for m in made.values()} == {str(tmp_path)}
    assert {str(m["overrides"]) for m in made.values()} == {"{'a.x': 1}"}
    assert outcome.report and json.loads(outcome.report.read_text()) == [["a", "b", "c", "d"]]
    assert outcome.peak_mb > 50
    clock = time.monotonic()
    second = go(lab, books)
    assert time.monotonic() - clock < 2
    assert sorted(second.kept) == sorted([*names, "00_start_here"]) and not second.made
    assert json.loads(outcome.report.read_text()) == [["a", "b", "c", "d"]], (
        "the report was written again for the same runs"
    )


def test_two_cores_never_hold_a_two_core_page_and_another(tmp_path: Path) -> None:
    lab = FakeLab(tmp_path / "outputs", threads={"b": 2})
    go(lab, pages(tmp_path / "notebooks", seconds=0.3))
    made = facts(lab)
    assert made["b"]["ended"] <= made["c"]["began"] or made["c"]["ended"] <= made["b"]["began"]


def test_cold_kernels_are_fresh_ones(lab: FakeLab, books: Path) -> None:
    go(lab, books, cold=True)
    assert len({m["pid"] for m in facts(lab).values()}) == 4


def test_a_named_stage_brings_only_what_it_needs(lab: FakeLab, books: Path) -> None:
    outcome = go(lab, books, "b")
    assert list(outcome.made) == ["01_a", "02_b"] and outcome.report is None
    outcome = go(lab, books, "report")
    assert not outcome.made and outcome.report is not None


def test_a_changed_page_runs_again_and_the_others_stand(lab: FakeLab, books: Path) -> None:
    go(lab, books)
    page(books, "02_b", make("b"), "print('one more cell')")
    outcome = go(lab, books)
    assert list(outcome.made) == ["02_b"] and len(outcome.kept) == 4


def test_a_failed_page_stops_what_depends_on_it_alone(
    lab: FakeLab, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """b fails: c still runs, d and the last page do not; mended, the same command goes on with b and d."""
    monkeypatch.chdir(lab.outputs.parent)
    page(books, "02_b", "x = 1", "def f():\n    raise ValueError('the loss is a fish\\nand more')\nf()")
    with pytest.raises(LabError) as caught:
        go(lab, books)
    said = str(caught.value)
    assert "Page 02_b stopped in cell 4 (def f():). ValueError: the loss is a fish." in said
    assert "outputs/fake/notebooks/02_b.ipynb" in said and said.endswith("the same command goes on: labkit run")
    assert list(facts(lab)) == ["a", "c"]
    saved = nbformat.read(lab.home / "notebooks" / "02_b.ipynb", as_version=4)
    assert any(o.output_type == "error" for c in saved.cells if c.cell_type == "code" for o in c.outputs)
    page(books, "02_b", make("b"))
    outcome = go(lab, books)
    assert sorted(outcome.kept) == ["01_a", "03_c"] and set(outcome.made) == {"02_b", "04_d", "00_start_here"}


def test_a_sentence_for_people_is_passed_on_as_it_is(lab: FakeLab, books: Path) -> None:
    page(books, "01_a", "from labkit.errors import LabError\nraise LabError('The vote is lost: vote again.')")
    with pytest.raises(LabError, match=r"stopped in cell 3 \(.*\)\. The vote is lost: vote again\. The page"):
        go(lab, books, "a")


def test_a_kernel_that_is_killed_names_the_cell_and_memory(lab: FakeLab, books: Path) -> None:
    page(books, "01_a", "import os", "os.kill(os.getpid(), 9)")
    with pytest.raises(LabError, match=r"Page 01_a stopped in cell 4 \(os.kill.*ran out of memory.*--jobs 1") as caught:
        go(lab, books, "a")
    assert "\n" not in str(caught.value)


def test_a_page_that_makes_no_run_is_noticed(lab: FakeLab, books: Path) -> None:
    page(books, "01_a", "1 + 1")
    with pytest.raises(LabError, match="did not make a: it must call lab.run"):
        go(lab, books, "a")


def test_a_page_without_a_parameter_is_noticed(lab: FakeLab, books: Path) -> None:
    """papermill only warns and would run the page with its defaults: the wrong recipe."""
    page(books, "01_a", make("a"), parameters="recipe = 'tiny'\noutputs = 'outputs'")
    with pytest.raises(LabError, match="has no parameter 'overrides'"):
        go(lab, books, "a")
    assert not facts(lab)


def test_unknown_stages_and_missing_pages(lab: FakeLab, books: Path) -> None:
    with pytest.raises(LabError, match="did you mean 'report'"):
        go(lab, books, "repot")
    (books / "03_c.ipynb").unlink()
    with pytest.raises(LabError, match="03_c.ipynb is missing"):
        go(lab, books)
    with pytest.raises(LabError, match="no finished run"):
        go(lab, books, "report")


def test_fresh_makes_the_runs_again_but_no_pinned_one(lab: FakeLab, books: Path) -> None:
    go(lab, books, "b")
    votes, before = lab.outputs / "votes.sqlite", facts(lab)["a"]["began"]
    votes.write_text("votes")
    run = lab.find("a")
    assert run is not None
    runs.note(run, pinned=True)
    with pytest.raises(LabError, match="a-000000 is pinned"):
        go(lab, books, "b", fresh=True)
    assert list(facts(lab)) == ["a", "b"]
    runs.note(run, pinned=False)
    assert len(go(lab, books, "b", fresh=True).made) == 2
    assert facts(lab)["a"]["began"] > before and votes.read_text() == "votes"


def test_progress_reads_the_run_that_is_being_made(tmp_path: Path) -> None:
    """Step 10 of 40 after 5 s: 0.5 s a step, 30 steps left, 15 s. A finished run and a half-written line are passed over."""
    for name, done in (("ppo-aaaaaa", True), ("ppo-bbbbbb", False)):
        (tmp_path / name).mkdir()
        row = json.dumps({"step": 10, "of": 40, "seconds": 5.0, "ppo/loss": 0.42})
        (tmp_path / name / "metrics.jsonl").write_text(row + '\n{"step": 11, "o')
        if done:
            (tmp_path / name / "run.json").touch()
    found = progress.newest(tmp_path, ["sft", "ppo"], since=0)
    assert found is not None and progress.describe(*found) == "ppo 10/40 · loss 0.42 · 15 s left"
    assert progress.newest(tmp_path, ["sft"], since=0) is None
    assert progress.newest(tmp_path, ["ppo"], since=time.time() + 60) is None


# Processes ------------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import fake_lab
from labkit import pipeline
lab = fake_lab.FakeLab(Path({outputs!r}))
try:
    pipeline.run(lab, jobs=2, graph=fake_lab.GRAPH, notebooks=Path({books!r}), warm_up="", report=fake_lab.write_report)
except KeyboardInterrupt:
    sys.exit(130)
"""


def command(tmp_path: Path, *, seconds: float) -> subprocess.Popen[str]:
    """The fake lab in a process of its own."""
    books = pages(tmp_path / "notebooks", seconds=seconds)
    code = SCRIPT.format(tests=str(Path(__file__).parent), outputs=str(tmp_path / "outputs"), books=str(books))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def kernels_of(process: subprocess.Popen[str], tmp_path: Path) -> list[psutil.Process]:
    """Its kernels, once the first page is inside its run."""
    until(lambda: list((tmp_path / "outputs").glob("fake/*/metrics.jsonl")))
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(found) == 2, "two pages run side by side, so there are two kernels"
    return found


def until(ready: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_commands_leave_no_kernel_and_nothing_finished(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C ends the kernels at once; after kill -9 each notices within seconds that its parent is gone."""
    process = command(tmp_path, seconds=60)
    kernels = kernels_of(process, tmp_path)
    process.send_signal(how)
    assert process.wait(timeout=20) == (130 if how == signal.SIGINT else -9)
    gone, alive = psutil.wait_procs(kernels, timeout=10)
    assert len(gone) == 2 and not alive
    lab = FakeLab(tmp_path / "outputs")
    assert not lab.finished()
    outcome = go(lab, pages(tmp_path / "notebooks"))
    assert len(outcome.made) == 5


@pytest.mark.slow
def test_a_second_command_says_who_works_and_waits(tmp_path: Path) -> None:
    process = command(tmp_path, seconds=0.3)
    until(lambda: (tmp_path / "outputs" / ".labkit.pid").exists())
    said: list[str] = []
    with upkeep.sole(tmp_path / "outputs", said.append):
        assert process.poll() is not None or process.wait(timeout=20) == 0
    assert len(said) == 1 and f"process {process.pid}" in said[0] and "waiting" in said[0]
    assert os.getpid() != process.pid and not (tmp_path / "outputs" / ".labkit.pid").exists()
