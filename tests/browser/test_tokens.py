"""The microscope in a real JupyterLab: looked at by keys and pointer, asked by hand, reloaded, in the dark, under attack."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

# Two made-up models: the second likes fish less and ends later. What they say is a pure function, without torch.
MODELS = """
import threading
from widgets.tokens import TokenView

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
going = threading.Event()
going.set()

def look(text, answer, a, b):
    going.wait(20)
    if not text.strip():
        from labkit.errors import LabError
        raise LabError("There is no prompt yet: type a question first.")
    tokens = []
    others = [[" a heron", 0.2], [" the river", 0.125], [answer[:60], 0.0625], ["\\n", 0.03], [" tar", 0.01]]
    for i, word in enumerate([*answer.split(" "), "<end>"]):
        up, mark = [-0.5, 1.75, -1.25, 0.0][i % 4], word == "<end>"
        piece = " " + word if i and not mark else word
        tokens.append({
            "text": piece, "whole": "", "mark": mark, "logp_a": -2.0, "logp_b": -2.0 + up, "change": up, "kl": 0.25 * i,
            "entropy_a": 1.5, "entropy_b": 1.25, "rank_a": 2, "rank_b": 7,
            "top_a": [others[0], [piece, 0.1353], *others[2:]], "top_b": others,
            "reward": 0.5 * i - 1, "value": 0.25, "advantage": -up,
        })
    n = len(tokens)
    total = {"tokens": n, "logp_a": -2.0 * n, "logp_b": -2.0 * n, "change": 0.0, "kl": 1.0, "reward": tokens[-1]["reward"]}
    name = lambda m: {"name": m, "id": m + "-0a1b2c", "label": m.upper()}
    return {"prompt": text, "answer": answer, "a": name(a), "b": name(b), "tokens": tokens, "totals": total, "notes": ["A note."]}

write = lambda text, model, seed: f"{model.upper()} says fish, {seed} times over"
"""
LIVE = (
    MODELS
    + """
view = TokenView(look, write=write, models=["sft", "dpo", "ppo"], text="What does the heron eat?", answer="It eats fish, and thanks the river.")
view
"""
)
HOSTILE = (
    MODELS
    + """
view = TokenView(look(EVIL, EVIL + " and " + EVIL, "sft", "dpo"))
view
"""
)
TOKEN, PANEL = ".tok", ".tok-panel"


def test_a_person_looks_at_an_answer_by_keys_and_pointer(notebook):
    book = notebook([LIVE])
    page = book.page
    page.wait_for_selector(TOKEN)  # the answer that it came with is looked at without a click
    assert page.locator(TOKEN).count() == 8
    page.locator(TOKEN).nth(1).click()
    assert "token 2 of 8" in page.locator(PANEL).inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "token 4 of 8" in page.locator(PANEL).inner_text()
    assert page.locator(f"{TOKEN}[aria-selected=true]").inner_text().strip() == "and"
    assert page.evaluate("() => document.activeElement.getAttribute('role')") == "option"
    page.locator(TOKEN).nth(6).hover()
    assert "token 7 of 8" in page.locator(PANEL).inner_text()
    page.locator(".tok-sums").hover()
    assert "token 4 of 8" in page.locator(PANEL).inner_text()  # the chosen one is back
    page.keyboard.press("End")
    assert "token 8 of 8" in page.locator(PANEL).inner_text()

    ground = "i => getComputedStyle(document.querySelectorAll('.tok')[i]).backgroundColor"
    assert page.evaluate(ground, 1) == "rgba(43, 123, 203, 0.72)"  # blue: the change of +1.75 is the strongest
    assert page.evaluate(ground, 2).startswith("rgba(230, 97, 1, 0.51")  # orange: −1.25
    page.keyboard.press("2")
    assert page.locator("select").first.evaluate("s => s.value") != "kl"  # the first select is a model
    assert "KL(DPO ‖ SFT)" in page.locator(".tok-result select option:checked").inner_text()
    assert page.evaluate(ground, 7) == "rgba(43, 123, 203, 0.72)"
    assert page.locator(TOKEN).nth(7).get_attribute("aria-label") == "<end> 1.75 nats"
    for key in ("a", "d", "d", "b", "x"):  # JupyterLab's command mode would add, delete and cut cells
        page.keyboard.press(key)
    assert page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length") == 1
    assert book.axe() == []
    book.shot("tokens")
    assert not book.errors


def test_models_write_and_are_looked_at_and_a_reload_keeps_it(notebook):
    book = notebook([LIVE], theme="dark")
    page = book.page
    page.wait_for_selector(TOKEN)
    page.get_by_label("to", exact=True).select_option("ppo")
    page.get_by_role("button", name="Let PPO write").click()
    book.wait("() => document.querySelector('.tok-text').textContent.startsWith('PPO says fish, 1 times')")
    assert page.get_by_label("Answer", exact=True).input_value() == "PPO says fish, 1 times over"
    page.get_by_label("Prompt").fill("")
    page.keyboard.press("Control+Enter")
    book.wait("() => document.querySelector('.lab-status').textContent.startsWith('There is no prompt yet')")
    assert page.locator(TOKEN).count() == 7  # what was seen still stands
    book.run("going.clear()")
    page.get_by_label("Prompt").fill("Who fishes here?")
    page.get_by_role("button", name="Look").click()
    book.wait("() => document.querySelector('.lab-status').textContent === 'looking …'")
    assert page.get_by_role("button", name="Look").is_disabled()
    book.reload()
    page.wait_for_selector(TOKEN)
    assert page.get_by_role("button", name="Look").is_disabled()
    assert page.get_by_label("Prompt").input_value() == "Who fishes here?"
    book.run("going.set()")
    book.wait("() => document.querySelector('.tok-result p').textContent === 'Who fishes here?'")
    assert page.get_by_role("button", name="Look").is_enabled()
    assert book.axe() == []
    page.locator(TOKEN).nth(2).click()
    book.shot("tokens")


def test_what_a_model_wrote_is_only_ever_text(notebook):
    book = notebook([HOSTILE, "from IPython.display import HTML\nHTML(view.static().html)"])
    book.page.wait_for_selector(TOKEN)
    book.page.locator(TOKEN).nth(1).click()
    assert book.page.locator(".lab-view img, .lab-view script").count() == 0
    assert "onerror=alert(1)" in book.page.locator(PANEL).inner_text()
    assert book.page.locator(".jp-OutputArea-output img, .jp-OutputArea-output script").count() == 0
    assert "onerror=alert(1)" in book.page.locator(".jp-RenderedHTMLCommon table").inner_text()
