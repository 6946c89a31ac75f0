"""What a model wrote stays text: in every widget, in an executed page that JupyterLab trusts, and in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
import synthetic

from browser.harness import Notebook, Tab
from browser.views import VIEWS
from browser.xss import OFFENDERS, PAYLOADS, READ, seen
from labkit import live, report, show
from labkit.records import Answer, Pair, Prompt, Vote

pytestmark = pytest.mark.slow
N = len(PAYLOADS)
EVERY = list(range(N))
FEW = {"pairs, static": 1, "compare, static": 3}  # these twins show examples, not everything
HEAD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from browser.views import VIEWS
from browser.xss import PAYLOADS
made = {{name: make(Path({folder!r}) / name, PAYLOADS) for name, make in VIEWS.items()}}
"""


# How each widget is walked from end to end, in the page: `look()` reads it, and looks for what should not be there.
WALKS = {
    **dict.fromkeys(
        ("pairs", "ranking", "thumbs"),
        """
        const bar = root.querySelector('.label-bar');
        do {
          await until(() => view().dataset.item);
          look();
          key('s');
          await until(() => view().dataset.item || bar.value === bar.max);
        } while (view().dataset.item);""",
    ),
    "compare": """
        click('Stored answers');
        for (let i = 1; i <= N; i++) {
          await until(() => root.querySelector('.cmp-place').textContent.startsWith(`${i} of ${N}`));
          look();
          key('n');
        }
        click('Ask live');
        root.querySelector('[aria-label="Your prompt"]').value = PAYLOADS[0];
        [...root.querySelectorAll('button')].find(b => b.textContent === 'Ask').click();
        const answers = () => [...root.querySelectorAll('[aria-busy=false]')].filter(c => c.textContent.includes('__proto__'));
        await until(() => answers().length === 2);
        look();
        click('Blind arena');
        click('Next round');
        await until(() => root.textContent.includes('Next round'));
        look();""",
    "tokens": """
        await until(() => root.querySelector('.tok'));
        root.querySelector('.tok').click();
        for (let i = 0; i < N; i++) {
          look();
          key('ArrowRight', document.activeElement);
        }""",
    "training": """
        await until(() => root.querySelector('.lab-card'));
        look();""",
    "retrain": """
        await until(() => root.querySelector('.loop-example'));
        look();""",
    "runs": """
        await until(() => root.querySelectorAll('tbody tr').length >= N);
        look();""",
    "name": """
        root.querySelector('input').value = PAYLOADS.join(' ');
        root.querySelector('form').requestSubmit();
        await until(() => root.querySelector('form').hidden);
        look();""",
    "ask": """
        root.querySelector('textarea').value = PAYLOADS[0];
        root.querySelector('textarea').dispatchEvent(new Event('input', {bubbles: true}));
        click('Ask');
        await until(() => root.textContent.includes('__proto__'));
        look();""",
}
WALK = """async (root, PAYLOADS) => {{
  const N = PAYLOADS.length, texts = [], bad = new Set();
  const view = () => root.querySelector('.lab-view');
  const look = () => {{ texts.push(({read})(root)); ({offenders})(root).forEach(one => bad.add(one)); }};
  const key = (key, node = view()) => node.dispatchEvent(new KeyboardEvent('keydown', {{key, bubbles: true, cancelable: true}}));
  const click = (start) => [...root.querySelectorAll('button')].find(b => b.textContent.trim().startsWith(start)).click();
  const until = async (holds) => {{
    for (const began = performance.now(); !holds(); await new Promise(soon => setTimeout(soon, 5)))
      if (performance.now() - began > 20000) throw new Error(`waited in vain: ${{holds}}`);
  }};
  {walk}
  return [texts.join(' '), [...bad]];
}}"""


# Each payload into a page of its own as a careless widget would put it there: which run, and in which something is seen.
ALIVE = """
  for (const [i, text] of texts.entries()) {
    delete window.__xss;
    const root = document.createElement('div');
    root.innerHTML = text;
    document.body.append(root);
    await new Promise(soon => setTimeout(soon, 40));
    if (window.__xss !== undefined) ran.push(i);
    if (off(root).length) seen.push(i);
    root.remove();
  }
  return [ran, seen];
"""


def walked(place: Any, walk: str = "look();") -> tuple[list[int], list[str]]:
    """Which payloads can be read in a part of the page on a walk through it, and what stands there that should not."""
    script = WALK.format(read=READ, offenders=OFFENDERS, walk=walk)
    read, offenders = place.evaluate(script, list(PAYLOADS))
    return seen(read), offenders


def test_the_payloads_are_alive(tab: Callable[..., Tab]) -> None:
    """Given to a page as HTML they run and load: what the other tests do not find would have been there to be found."""
    one = tab("https://xss.invalid")
    one.page.set_content("<title>unsafe</title>")
    harmful = [p for p in PAYLOADS if "refresh" not in p]  # that one leads the page itself away
    found = one.page.evaluate(
        f"async texts => {{ const off = {OFFENDERS}; const [ran, seen] = [[], []]; {ALIVE} }}", harmful
    )
    ran, offenders = found
    assert len(ran) >= 6 and len(offenders) >= 18, f"ran {ran}, saw {offenders}"
    assert any("xss.invalid" in url for url in one.requests)


def test_no_widget_lets_a_payload_run(notebook: Callable[..., Notebook], tmp_path: Path, root: Path) -> None:
    """One page with every widget, each walked from end to end; every payload was read in every one of them."""
    assert set(WALKS) == set(VIEWS)
    assert N >= 30 and len(set(PAYLOADS)) == N
    head = HEAD.format(tests=str(root / "tests"), folder=str(tmp_path))
    book = notebook([head, *(f"made[{name!r}]" for name in VIEWS)])
    found = {}
    for i, name in enumerate(VIEWS, 1):
        part = book.page.locator(".jp-Notebook .jp-Cell").nth(i).locator(".jp-OutputArea").first
        part.locator(".lab-view, .lab-ask").first.wait_for()
        found[name] = walked(part, WALKS[name])
    assert found == {name: (EVERY, []) for name in VIEWS}
    unharmed(book)
    assert not book.errors


def test_an_executed_page_that_is_trusted_runs_nothing(notebook: Callable[..., Notebook], tmp_path: Path) -> None:
    """What the pages print and the twins of the widgets, as papermill leaves them, in JupyterLab as its own outputs."""
    prints = printed(tmp_path)
    cells = [nbformat.v4.new_code_cell(f"# {name}", outputs=outputs(seen_)) for name, seen_ in prints.items()]
    page = nbformat.v4.new_notebook(cells=cells)
    page.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = notebook(page, trusted=True)
    found = {}
    for i, name in enumerate(prints):
        part = book.page.locator(".jp-Notebook .jp-Cell").nth(i).locator(".jp-Cell-outputArea")
        part.scroll_into_view_if_needed()
        read, offenders = walked(part)
        found[name] = (len(read), offenders)
    assert found == {name: (FEW.get(name, N), []) for name in prints}
    unharmed(book)


def test_the_report_runs_nothing(tab: Callable[..., Tab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report of a ladder whose prompts and answers are all payloads, opened from the disk."""
    ask, say = synthetic.prompts, synthetic.answers
    monkeypatch.setattr(
        synthetic,
        "prompts",
        lambda split, n: [
            replace(p, messages=({"role": "user", "content": PAYLOADS[i % N]},)) for i, p in enumerate(ask(split, n))
        ],
    )
    monkeypatch.setattr(
        synthetic,
        "answers",
        lambda *about, **more: [replace(a, text=PAYLOADS[i // 2 % N]) for i, a in enumerate(say(*about, **more))],
    )
    runs = synthetic.ladder(tmp_path / "runs", n=N, only=("pretrain", "sft", "ppo", "dpo"))
    file = report.write(synthetic.lab(tmp_path / "home"), runs=runs)
    one = tab(file.as_uri())
    one.page.goto(file.as_uri())
    one.wait("() => document.readyState === 'complete'")
    one.page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
    read, offenders = walked(one.page.locator("body"))
    assert not [o for o in offenders if "xss" in o]
    assert len(read) >= 5
    unharmed(one)


def unharmed(tab: Tab) -> None:
    """Nothing ran, nothing was loaded, no dialog opened; a moment later, since some payloads would take it."""
    tab.page.wait_for_timeout(200)
    frames = [frame.evaluate("() => window.__xss === undefined") for frame in tab.page.frames]
    assert frames == [True], "a payload ran, or opened a frame"
    assert not [url for url in tab.requests if "xss" in url]
    tab.check()


def outputs(seen_: dict[str, str]) -> list[Any]:
    """A displayed thing and its text printed in two ways, as an executed page holds them."""
    shown = nbformat.v4.new_output("display_data", data=seen_)
    plain = nbformat.v4.new_output("execute_result", data={"text/plain": seen_["text/plain"]}, execution_count=1)
    return [shown, plain, nbformat.v4.new_output("stream", name="stdout", text=seen_["text/plain"])]


def printed(folder: Path) -> dict[str, dict[str, str]]:
    """All that prints text of models and people, with the whole corpus in each."""
    prompts = [Prompt.of(p) for p in PAYLOADS]
    answers = [Answer(prompt=p, text=p.text, author="sft", n=0, tokens=5) for p in prompts]
    votes = [
        Vote(
            id=f"v{i}", prompt=p, answers=(p.text, "no"), ranks=(1, 2), rater=p.text[:60], source="person", time="2026-01-01",
            mode="pair",
        )
        for i, p in enumerate(prompts)
    ]  # fmt: skip
    samples = [{"step": s, "answers": [{"prompt": p, "answer": p, "gold": 0.5} for p in PAYLOADS]} for s in (1, 2)]
    found = {
        "answers": show.together(map(show.record, answers)),
        "pairs": show.together(show.record(Pair(prompt=p, chosen=p.text, rejected=p.text)) for p in prompts),
        "votes": show.together(map(show.record, votes)),
        "tokens": show.tokens(PAYLOADS, [True] * N, title=PAYLOADS[0]),
        "side by side": show.together(
            show.side_by_side(p, {"sft": [p.text], "dpo": [p.text]}, why=p.text) for p in prompts
        ),
        "table": show.table([{"prompt": p, "answer": p} for p in PAYLOADS], caption=PAYLOADS[0]),
        "on the way": live.ways(samples),
    }
    bundles = {name: {"text/html": html._repr_html_(), "text/plain": repr(html)} for name, html in found.items()}
    for name in ("pairs", "compare", "tokens", "retrain", "runs"):
        bundles[f"{name}, static"] = VIEWS[name](folder / name, PAYLOADS)._repr_mimebundle_()
    return bundles
