"""The pages: their anatomy read from the files, and (slow) every page of recipe smoke through papermill in a cold kernel."""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
import pytest

import labkit
from labkit import pipeline, recipe, schedule, stages

PARAMETERS = ("recipe", "overrides", "outputs")
FORBIDDEN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.For, ast.If, ast.Try)
OVERRIDES = re.compile(r"`(\{\".*?\})`(?=[^}]|$)")


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, Any]:
    """Every page by its name."""
    found = {f.stem: nbformat.read(f, as_version=4) for f in sorted((root / "notebooks").glob("*.ipynb"))}
    assert len(found) >= 9, f"only {len(found)} pages were seen"
    return found


def code(page: Any) -> list[Any]:
    return [c for c in page.cells if c.cell_type == "code"]


def lines(cell: Any) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]


def prose(page: Any) -> str:
    return "\n\n".join(c.source for c in page.cells if c.cell_type == "markdown")


def test_the_graph_and_the_folder_name_the_same_pages(pages: dict[str, Any]) -> None:
    assert set(pages) == {node.page for node in stages.GRAPH.values()} | {schedule.START}


def test_pages_are_committed_as_they_are_read(pages: dict[str, Any]) -> None:
    """No outputs, no counts, stable ids that say what a cell is for, the plain kernel."""
    for name, page in pages.items():
        nbformat.validate(page)
        assert page.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}, name
        ids = [c.id for c in page.cells]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"[a-z][a-z-]+", i) for i in ids), f"{name}: {ids}"
        for cell in code(page):
            assert not cell.outputs and cell.execution_count is None, f"{name}: {cell.id} was committed with its output"


def test_cells_are_a_page_and_not_a_program(pages: dict[str, Any]) -> None:
    """No definitions, loops or branches, nothing longer than 12 lines, half of all cells of at most 5."""
    seen = []
    for name, page in pages.items():
        for cell in code(page):
            where = f"{name}: {cell.id}"
            assert 0 < len(lines(cell)) <= 12, where
            assert not any(isinstance(node, FORBIDDEN) for node in ast.walk(ast.parse(cell.source))), where
            assert not re.search(r"plotly|matplotlib|\bos\.|Path\(|\btest\b", cell.source), where
            assert all(len(line) <= 120 for line in lines(cell)), where
            seen.append(len(lines(cell)))
    assert len(seen) > 80 and statistics.median(seen) <= 5


def test_parameters_are_the_same_everywhere(pages: dict[str, Any]) -> None:
    """papermill only warns about an unknown name: so the names are checked here, and that each is one plain assignment."""
    found = Counter()
    for name, page in pages.items():
        [cell] = [c for c in code(page) if "parameters" in c.metadata.get("tags", [])]
        assert cell is code(page)[0], f"{name}: the parameters come first"
        names = [node.target.id for node in ast.parse(cell.source).body if isinstance(node, ast.AnnAssign)]
        assert names == list(PARAMETERS)
        found[cell.source] += 1
    assert list(found.values()) == [len(pages)]


def test_every_page_has_its_anatomy(pages: dict[str, Any]) -> None:
    for name, page in pages.items():
        title, idea = page.cells[0].source, page.cells[1].source
        assert title.startswith("# ") and "| takes | makes | time | watch |" in title, name
        assert "$$" in idea and re.search(r"^Sources?: ", idea, re.M), name
        words = len(re.sub(r"\$.*?\$", "", idea.replace("$$", "$"), flags=re.S).split())
        assert words <= 150, f"{name}: the idea takes {words} words"
        sources = "\n".join(c.source for c in code(page))
        assert f'page.open("{name}", recipe, overrides, outputs)' in sources
        assert "AskView(" in sources or "CompareView(" in sources
        for heading in ("## Look", "## What you should have seen", "**How it fails.**", "**Three things to change.**"):
            assert heading in prose(page), f"{name}: {heading}"
        if name != schedule.START:
            assert "show.settings(" in sources and "show.source(" in sources
            assert code(page)[-1].source == "show.card(run)"


def test_every_run_is_made_on_its_page_and_on_no_other(pages: dict[str, Any]) -> None:
    seen = []
    for name, page in pages.items():
        made = re.findall(r'(?:lab\.run|train)\((?:lab, )?"(\w+)"\)', "\n".join(c.source for c in code(page)))
        assert all(stages.GRAPH[run].page == name for run in made), f"{name} makes {made}"
        seen += made
    assert sorted(seen) == sorted(set(stages.GRAPH) - {"judge"})  # page.judge makes it where the recipe asks
    assert any(c.source.startswith("page.judge(lab)") for c in code(pages[stages.GRAPH["judge"].page]))


def test_what_the_prose_tells_the_reader_to_change_can_be_changed(pages: dict[str, Any]) -> None:
    """Every `{"stage.key": value}` in the text is a set of overrides that the recipe tiny takes."""
    seen = 0
    for name, page in pages.items():
        for text in OVERRIDES.findall(prose(page)):
            seen += 1
            recipe.load("tiny", ast.literal_eval(text), sections=stages.sections())
        assert len(OVERRIDES.findall(prose(page))) >= 2, name
    assert seen >= 24


@pytest.mark.slow
def test_every_page_runs_cold_and_leaves_a_page_that_can_be_read(tmp_path: Path, pages: dict[str, Any]) -> None:
    """The whole of recipe smoke, each page in a kernel of its own, in the graph's order; a second time nothing is done."""
    lab = labkit.open("smoke", outputs=str(tmp_path))
    outcome = pipeline.run(lab, cold=True)
    assert sorted(outcome.made) == sorted(pages)
    assert set(lab.finished()) == {n for n in stages.GRAPH if stages.asked_for(n, lab.recipe)}
    for name in pages:
        page = nbformat.read(lab.home / "notebooks" / f"{name}.ipynb", as_version=4)
        outputs = [(c.id, o) for c in code(page) for o in c.outputs]
        assert len(outputs) >= 5
        loud = [(i, o.get("text", o)) for i, o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
        assert not loud, f"{name} prints what no reader wants to see: {loud}"
        assert not [i for i, o in outputs if any("widget-view" in kind for kind in o.get("data", {}))], name
        assert "widgets" not in page.metadata, f"{name} keeps the state of widgets"
        assert (lab.home / "notebooks" / f"{name}.ipynb").stat().st_size < 400_000
    again = pipeline.run(lab, cold=True)
    assert not again.made and len(again.kept) == len(pages)
