"""Journeys through CompareView and RunPicker in a real JupyterLab: asked live, leafed through, judged blind, chosen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import synthetic

from labkit import arena, runs
from labkit.feedback.store import VoteStore

pytestmark = pytest.mark.slow

PANEL = ".cmp [role=tabpanel]:not([hidden])"
OPEN = """
import time
from pathlib import Path
from labkit import compare, runs
from labkit.feedback.store import VoteStore
from labkit.records import Answer, Prompt
from widgets.compare import CompareView
from widgets.runs import RunPicker

found = list(runs.every(Path({outputs!r})))
store = VoteStore({store!r})
c = compare.join([r for r in found if r.name in ("pretrain", "sft", "ppo", "dpo")], samples=100)
"""
# Models that need no weights: each writes its words slowly, some of them hostile.
MODELS = """
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
class Slow:
    def __init__(self, author, words): self.author, self.words = author, words
    def __call__(self, text, *, on_token, seed=0, max_tokens=48, **how):
        told, words = "", [*self.words, *("and" for _ in range(max(0, seed)))][:max_tokens]
        for word in words:
            told = (told + " " + word).strip()
            if on_token(told) is False:
                return Answer(prompt=Prompt.of(text, kind="typed"), text=told, author=self.author, ended=False)
            time.sleep({pause})
        return Answer(prompt=Prompt.of(text, kind="typed"), text=told, author=self.author, tokens=len(words), scores={{"gold": 1.5}})
models = {{"sft": Slow("sft", "Fill a tub with water".split()), "ppo": Slow("ppo", ["Fill", EVIL, "with", "soap"]),
          "dpo": Slow("dpo", "Fill a tub with joy".split())}}
"""


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    synthetic.ladder(tmp_path / "tiny", only=("pretrain", "sft", "reward", "ppo", "dpo"))
    return tmp_path


def address(outputs: Path) -> str:
    return f"sqlite:///{outputs / 'votes.sqlite'}"


def open_view(notebook: Any, outputs: Path, *, theme: str = "light", pause: float = 0.0, **more: str) -> Any:
    """A notebook with the view in it, on the tab that is asked for."""
    cells = [OPEN.format(outputs=str(outputs), store=address(outputs)), MODELS.format(pause=pause)]
    page = notebook(
        [*cells, "view = CompareView(c, models=models, votes=store, seed=1)\nview", *more.values()], theme=theme
    )
    page.wait("() => document.querySelector('.cmp ins')")
    return page


def turn_to(page: Any, name: str) -> Any:
    page.page.get_by_role("tab", name=name).click()
    return page.page.locator(PANEL)


def texts(panel: Any) -> list[str]:
    return panel.locator(".cmp-text").all_inner_texts()


def status(page: Any) -> str:
    return page.page.locator(".cmp > .lab-status").inner_text()


def pictures(page: Any, name: str, selector: str = ".cmp") -> None:
    """A picture in light and one in dark, and nothing in either that keeps anybody out."""
    for theme in ("light", "dark"):
        kept = f"JupyterLab {theme.title()}"
        page.page.evaluate(
            "theme => jupyterapp.commands.execute('apputils:change-theme', {theme}).then(() => null)", kept
        )
        page.wait(f"() => document.body.dataset.jpThemeName === '{kept}'")
        page.theme = theme
        page.shot(name, selector)
        assert page.axe(selector) == []


def stored(outputs: Path) -> list[Any]:
    return VoteStore(address(outputs)).votes(run=arena.RUN)


def test_ask_live_and_vote(notebook: Any, outputs: Path) -> None:
    """Ctrl+Enter asks and runs no cell; words arrive one by one, differences are marked at the end, and hostile ones stay text."""
    page = open_view(notebook, outputs, pause=0.15)
    cells = page.page.locator(".jp-Cell").count()
    panel = turn_to(page, "Ask live")
    page.page.get_by_label("Your prompt").fill("How do I wash a hare?")
    page.page.get_by_label("Your prompt").press("Control+Enter")
    page.wait(f"() => document.querySelector('{PANEL} .cmp-text')?.textContent === 'Fill a tub'")
    assert panel.locator("article").first.get_attribute("aria-busy") == "true"
    page.wait("() => document.querySelector('.cmp > .lab-status')?.textContent === 'All have answered'")
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    assert texts(panel) == ["Fill a tub with water", f"Fill {evil} with soap", "Fill a tub with joy"]
    assert panel.locator("ins").all_inner_texts()[-1] == "joy" and panel.locator("img, script").count() == 0
    page.page.keyboard.press("Escape")
    page.page.keyboard.press("3")
    page.wait(
        "() => !document.querySelector('.cmp-unsaved')?.textContent && document.querySelector('[aria-pressed=true].cmp-best')"
    )
    deadline = time.monotonic() + 5
    while not stored(outputs) and time.monotonic() < deadline:
        time.sleep(0.05)
    [vote] = stored(outputs)
    assert (
        vote.mode == "ranking"
        and vote.answers[vote.ranks.index(1)] == "Fill a tub with joy"
        and "blind" not in vote.reasons
    )
    for key in "abdd":
        page.page.keyboard.press(key)
    assert page.page.locator(".jp-Cell").count() == cells, "no key reached JupyterLab"
    pictures(page, "compare-live")
    assert page.errors == []


def test_stop_and_reload_while_models_write(notebook: Any, outputs: Path) -> None:
    page = open_view(notebook, outputs, pause=0.3)
    panel = turn_to(page, "Ask live")
    panel.get_by_label("Seed").fill("300")  # so many words that no machine is too slow to stop in between
    panel.get_by_label("Longest answer").fill("400")
    page.page.get_by_label("Your prompt").fill("Tell me more")
    panel.get_by_role("button", name="Ask").click()
    page.wait(f"() => document.querySelector('{PANEL} .cmp-text')?.textContent.startsWith('Fill a')", 30)
    page.reload()
    page.wait(f"() => document.querySelector('{PANEL} .cmp-text')?.textContent.length > 24", 40)
    panel = page.page.locator(PANEL)
    said = texts(panel)[0]
    assert said.startswith("Fill a tub with water") and said.count("Fill") == 1, "nothing doubled, nothing missed"
    panel.get_by_role("button", name="Stop").click()
    page.wait("() => document.querySelector('.cmp > .lab-status')?.textContent === 'All have answered'")
    assert panel.locator(".cmp-state").all_inner_texts() == ["stopped", "stopped", "stopped"]
    assert page.eval("[len(c['text']) > 0 for c in view.live.columns()]") == "[True, False, False]"


def test_leaf_through_stored_answers(notebook: Any, outputs: Path) -> None:
    """Filters say how many pass; arrows turn the pages; what PPO hacked is found; all in the dark."""
    page = open_view(notebook, outputs, theme="dark")
    panel = page.page.locator(PANEL)
    place = lambda: panel.locator(".cmp-place").inner_text()  # noqa: E731
    assert place() == "1 of 70" and len(texts(panel)) == 3, "the models that can be asked stand side by side"
    first = texts(panel)
    assert panel.locator("ins").count() > 0 == panel.locator("del").count()
    page.page.get_by_label("How differences are shown").select_option("gone")
    assert panel.locator("del").count() > 0 and texts(panel) != first
    page.page.get_by_label("How differences are shown").select_option("new")
    panel.get_by_label("Kind").select_option("story")
    page.wait(f"() => document.querySelector('{PANEL} .cmp-place')?.textContent === '1 of 10 (of 70 prompts)'")
    page.page.locator(".cmp").focus()
    for key, now in (("ArrowRight", "2"), ("n", "3"), ("ArrowLeft", "2"), ("p", "1")):
        page.page.keyboard.press(key)
        page.wait(f"() => document.querySelector('{PANEL} .cmp-place')?.textContent.startsWith('{now} of 10')")
    panel.get_by_label("Kind").select_option("")
    panel.get_by_label("Model").select_option("ppo")
    panel.get_by_label("did").select_option("hacked")
    page.wait(f"() => document.querySelector('{PANEL} .cmp-place')?.textContent === '1 of 2 (of 70 prompts)'")
    panel.get_by_label("did").select_option("")
    panel.get_by_label("Order").select_option("loss")
    page.wait(f"() => document.querySelector('{PANEL} .cmp-place')?.textContent === '1 of 70'")
    page.wait(f"() => document.querySelectorAll('{PANEL} .cmp-state')[1].textContent.startsWith('−')")
    panel.get_by_label("Search").fill("zebra")
    page.wait(f"() => document.querySelector('{PANEL}')?.innerText.includes('No prompt passes this filter')")
    panel.get_by_label("Search").fill("badger")
    page.wait(f"() => document.querySelector('{PANEL} .cmp-card')?.offsetParent")
    pictures(page, "compare-browse")
    assert page.errors == [] and stored(outputs) == []


def test_blind_rounds_and_a_kernel_that_dies(notebook: Any, outputs: Path) -> None:
    """Names appear once the vote is stored; a vote that found no kernel is stored by the next, and the standings go on."""
    page = open_view(notebook, outputs)
    turn_to(page, "Blind arena")
    page.page.keyboard.press("n")
    for n, key in enumerate("abtx", 1):
        page.wait(f"() => document.querySelectorAll('{PANEL} .cmp-card').length === 2")
        heads = page.page.locator(f"{PANEL} .cmp-head strong")
        page.wait(f"() => document.querySelector('{PANEL} .cmp-head strong')?.textContent === 'A'")
        assert heads.all_inner_texts() == ["A", "B"]
        page.page.keyboard.press(key)
        page.wait(f"() => document.querySelector('{PANEL} .cmp-head strong')?.textContent.startsWith('A: ')")
        assert len(stored(outputs)) == n, "names are shown after the store has the vote"
        if n == 4:
            pictures(page, "compare-arena")
        page.page.keyboard.press("n")
    page.wait(f"() => document.querySelector('{PANEL} .cmp-head strong')?.textContent === 'A'")
    assert [v.flag for v in stored(outputs)].count("both_bad") == 1 and {len(v.shown) for v in stored(outputs)} == {2}
    page.kill()
    page.page.get_by_role("button", name="A is better").evaluate(
        "node => node.click()"
    )  # JupyterLab may have the focus
    page.wait("() => document.querySelector('.cmp-unsaved')?.textContent.includes('1 not yet saved')")
    page.revive()
    page.run_all()
    turn_to(page, "Blind arena")
    page.wait(f"() => document.querySelectorAll('{PANEL} .cmp-standings tbody tr').length > 1", 20)
    deadline = time.monotonic() + 10
    while len(stored(outputs)) < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
    rounds = sum(row["rounds"] for row in arena.standings(stored(outputs)))
    assert len(stored(outputs)) == 5 and rounds == 10
    page.wait("() => !document.querySelector('.cmp-unsaved')?.textContent")


def test_a_typed_round(notebook: Any, outputs: Path) -> None:
    page = open_view(notebook, outputs, pause=0.02)
    panel = turn_to(page, "Blind arena")
    panel.get_by_label("Prompt").fill("How do I wash a hare?")
    panel.get_by_label("Prompt").press("Enter")
    page.wait(f"() => document.querySelectorAll('{PANEL} .cmp-card').length === 2")
    page.wait("() => document.querySelector('.cmp > .lab-status')?.textContent.startsWith('Two answers')")
    panel.get_by_role("button", name="A is better").click()
    page.wait(f"() => document.querySelector('{PANEL} .cmp-head strong')?.textContent.startsWith('A: ')")
    [vote] = stored(outputs)
    assert vote.prompt.text == "How do I wash a hare?" and set(arena.authors(vote)) <= {
        r.id for r in runs.every(outputs)
    }
    panel.get_by_role("button", name="Take back").click()
    deadline = time.monotonic() + 5
    while stored(outputs) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert stored(outputs) == []


def test_pick_runs_and_the_view_follows(notebook: Any, outputs: Path) -> None:
    picker = f"picker = RunPicker({str(outputs)!r}, chosen=['sft'], on_change=view.follow)\npicker"
    page = open_view(notebook, outputs, picker=picker)
    page.wait("() => document.querySelectorAll('.pick tbody tr').length === 5")
    ids = {r.name: r.id for r in runs.every(outputs)}
    page.page.get_by_label(f"Choose tiny/{ids['ppo']}").check()
    page.wait("() => document.querySelectorAll('.cmp-chip').length === 3", 20)  # SFT, PPO and what else can be asked
    assert page.eval("view.c.authors") == "['sft', 'ppo']"
    page.page.get_by_label(f"Note for tiny/{ids['sft']}").fill("the good one")
    page.page.keyboard.press("Enter")
    page.page.get_by_label(f"Pin tiny/{ids['sft']}").click()
    page.wait("() => document.querySelector('.pick .lab-status')?.textContent === 'Pinned'")
    sft = next(r for r in runs.every(outputs) if r.name == "sft")
    assert runs.marks(sft) == {"note": "the good one", "pinned": True}
    told = page.page.get_by_role("region", name="What changed").inner_text()
    assert "made from reward" in told and ids["reward"] in told
    page.page.get_by_label("Search runs").fill("good one")
    assert page.page.locator(".pick tbody tr:not([hidden])").first.inner_text().strip().startswith("SFT")
    page.page.get_by_label("Search runs").fill("")
    pictures(page, "runs", ".pick")
    assert page.errors == []
