"""What pages call: opening, joining, live progress, the box to ask in; all without a browser and without training."""

from __future__ import annotations

import html
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import labkit
from labkit import page, runs, show
from labkit.errors import LabError
from labkit.lab import Lab
from labkit.live import Live
from labkit.records import Answer, Prompt, write_jsonl
from widgets.ask import AskView

EVIL = "<img src=x onerror=alert(1)>"


def finish(lab: Lab, name: str, **summary: object) -> runs.Run:
    """The run `name` as this lab plans it, finished and empty but for one answer to each of three prompts."""
    plan = lab.plan(name)
    folder = runs.start(lab.folder, plan.id)
    (folder / "recipe.yaml").write_text(lab.recipe.dump(), encoding="utf-8")
    asked = [Prompt.of(f"{EVIL} {n}?", kind="fact", split="validation") for n in range(3)]
    write_jsonl(
        folder / "answers.jsonl",
        [Answer(prompt=p, text=EVIL, author=name, tokens=3, scores={"gold": 1.0}) for p in asked],
    )
    facts = {
        "id": plan.id,
        "name": name,
        "stage": name,
        "summary": summary,
        "seconds": 1.0,
        "finished": "2026-01-01T00:00:00",
    }
    facts |= {"parents": {n: p.id for n, p in plan.parents.items()}, "votes": None, "peak_mb": 1}
    return runs.finish(folder, facts)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return labkit.open("smoke", outputs=str(tmp_path))


def test_a_page_whose_parent_is_missing_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="builds on pretrain-.*run page 01_pretrain first"):
        page.open("02_sft", "smoke", {}, str(tmp_path))


def test_an_error_in_a_page_is_one_red_sentence_and_still_an_error() -> None:
    """IPython asks the exception for its traceback; the cell fails all the same, which papermill must see."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shown: list[list[str]] = []
    shell._showtraceback = lambda kind, value, lines: shown.append(lines)
    result = shell.run_cell("from labkit.errors import LabError\nraise LabError('Do this next.')")
    assert not result.success and isinstance(result.error_in_exec, LabError)
    assert shown == [["\x1b[31mDo this next.\x1b[0m"]]


def test_a_changed_recipe_is_noticed_with_what_differs(tmp_path: Path, lab: Lab) -> None:
    older = finish(lab, "pretrain")
    assert list(page.notices(lab, ["pretrain"])) == []
    other = labkit.open("smoke", {"pretrain.batch": 7, "seed": 3}, outputs=str(tmp_path))
    [notice] = page.notices(other, ["pretrain"])
    assert older.id in notice.text and other.plan("pretrain").id in notice.text
    was = lab.recipe["pretrain"].batch
    assert f"pretrain.batch {was} → 7" in notice.text and "seed 0 → 3" in notice.text
    finish(other, "pretrain")
    assert list(page.notices(other, ["pretrain"])) == [], "the run that the recipe asks for is there now"


def test_joining_reads_validation_and_stands_without_runs_or_judges(lab: Lab) -> None:
    empty = page.join(lab)
    assert empty.rows() == [] and empty.best_examples() == [] and "No model" in page.ladder(empty).text
    run = finish(lab, "pretrain", web_nll=9.99)
    joined = page.join(lab)
    assert joined.split == "validation" and joined.score == "gold" and "9.99" not in page.ladder(joined).text
    rows = [json.loads(line) for line in (run.path / "answers.jsonl").read_text().splitlines()]
    write_jsonl(run.path / "answers.jsonl", [{**row, "scores": {"reward": 5.0}} for row in rows])
    (run.path / "run.json").write_text(json.dumps({**run.manifest, "files": {}}))
    unjudged = page.join(lab)
    assert unjudged.score == "", "the proxy that PPO climbs is never the judge"
    assert unjudged.rows()[0]["gold"] is None and unjudged.rows()[0]["tokens"] == 3


def test_progress_is_one_line_headless_and_throttled_in_a_page(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    job = SimpleNamespace(id="dpo-000000", name="dpo")
    rows = [{"step": n, "of": 50, "seconds": n / 10, "train/loss": 1 / n} for n in range(1, 51)]
    for row in rows:
        Live(attached=False)(job, row)
    assert capsys.readouterr().out == "dpo ▰▰▰▰▰▰▰▰▰▰ 50/50 · loss 0.02 · 5 s in all\n"
    live, drawn = Live(attached=True), []
    monkeypatch.setattr(live, "_draw", drawn.append)
    for row in rows:
        live(job, row)
    assert 2 <= len(drawn) <= 5, "the first and the last step, and at most one picture in a quarter of a second"
    assert "<img" in drawn[-1].html and "<svg" not in drawn[-1].html, (
        "JupyterLab strips SVG from pages it does not trust"
    )


EXAMPLE = {
    "prompt": Prompt.of(EVIL),
    "why": "fact",
    "answers": {"sft": [Answer(prompt=Prompt.of(EVIL), text=EVIL, author="sft", scores={"gold": 1.0})], "dpo": []},
}


def test_without_a_page_the_box_is_a_table_of_stored_answers(monkeypatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    view = AskView({"sft": lambda text, **how: text}, examples=[EXAMPLE])
    seen = view._repr_mimebundle_()
    assert set(seen) == {"text/html", "text/plain"} and EVIL not in seen["text/html"]
    assert html.escape(EVIL) in seen["text/html"] and "DPO" not in seen["text/plain"]
    assert "box" not in vars(view), "no widget is made that nobody sees"
    assert "No model is finished" in AskView({})._repr_mimebundle_()["text/plain"]


def test_in_a_page_the_box_asks_in_a_thread_and_escapes(monkeypatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "page")
    heard: list[tuple[str, float, int]] = []

    def model(text: str, *, temperature: float, seed: int) -> Answer:
        heard.append((text, temperature, seed))
        return Answer(prompt=Prompt.of(text), text=EVIL, author="sft", tokens=4, ended=False, scores={"gold": 1.5})

    def refuses(text: str, **how: float) -> str:
        raise LabError(f"{EVIL} is too long: shorten it.")

    def breaks(text: str, **how: float) -> str:
        raise ZeroDivisionError("oh")

    view = AskView({"sft": model, "ppo": refuses, "dpo": breaks})
    assert "application/vnd.jupyter.widget-view+json" in view._repr_mimebundle_()
    view.seed.value, view.prompt.value = 7, "Who?"
    thread = view.ask("Who?")
    assert thread is not None
    thread.join(5)
    assert heard == [("Who?", 1.0, 7)]
    shown = {name: column.value for name, column in view.columns.items()}
    assert html.escape(EVIL) in shown["sft"] and "gold 1.50 · 4 tokens · cut off" in shown["sft"]
    assert html.escape(EVIL) in shown["ppo"] and "ZeroDivisionError: oh" in shown["dpo"]
    assert not any(EVIL in text for text in shown.values()) and not view.button.disabled
    keys = view.box.children[-1]
    keys._handle_custom_msg({"kind": "ask", "text": "By key?", "count": 1}, [])
    for _ in range(200):
        if len(heard) == 2 and not view.button.disabled:
            break
        time.sleep(0.01)
    assert heard[1][0] == "By key?"


def test_answers_with_markup_stay_text_wherever_pages_show_them() -> None:
    answer = replace(EXAMPLE["answers"]["sft"][0], author=EVIL)
    for seen in (show.examples([EXAMPLE]), show.together([show.record(answer)])):
        assert EVIL not in seen.html and html.escape(EVIL) in seen.html


def test_widgets_open_without_torch_or_ipywidgets() -> None:
    code = "import sys, widgets.ask; print([m for m in ('torch', 'ipywidgets', 'anywidget') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
