"""A box to type a prompt into, which several models answer side by side; without a page a table of stored answers.

Built from plain ipywidgets, with one hidden part that hears Ctrl+Enter. Everything a model wrote is escaped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit import show
from labkit.errors import LabError
from labkit.records import Answer

FAINT = "color:#7d7d7d;font-size:12px"
HINT = "To type a prompt of your own, open this page in JupyterLab: labkit lab."


class AskView:
    """`models` maps a name to a function `(text, temperature=, seed=) → answer`, called in a thread of its own.

    `examples` are rows of prompt, why and answers (as `Comparison.best_examples` gives them), shown where no page listens.
    """

    def __init__(self, models: Mapping[str, Callable[..., Any]], *, examples: Sequence[Mapping[str, Any]] = ()) -> None:
        self.models = dict(models)
        self.examples = [{**e, "answers": {n: a for n, a in e["answers"].items() if n in models}} for e in examples]
        self._busy = threading.Lock()
        self._asked: set[str] = set()

    @cached_property
    def box(self) -> Any:
        """The widget itself, made when it is first looked at."""
        import ipywidgets as w

        wide = w.Layout(width="100%")
        self.prompt = w.Textarea(placeholder="Ask something …", rows=2, layout=wide)
        self.button = w.Button(description="Ask", button_style="primary", tooltip="or Ctrl+Enter in the box")
        self.temperature = w.BoundedFloatText(
            1.0,
            min=0.1,
            max=1.5,
            step=0.1,
            description="temperature",
            layout=w.Layout(width="150px"),
            style={"description_width": "initial"},
        )  # a slider of ipywidgets has no name that a screen reader could say
        self.seed = w.BoundedIntText(0, min=0, max=10**6, description="seed", layout=w.Layout(width="140px"))
        self.status = w.Label("Ctrl+Enter asks, too.")
        self.columns = {name: w.HTML(layout=wide) for name in self.models}
        heads = {name: w.HTML(f"<b>{show.stage(name).html}</b>") for name in self.models}
        column = w.Layout(flex="1 1 180px", min_width="160px", margin="0 12px 0 0")
        side = [w.VBox([heads[name], self.columns[name]], layout=column) for name in self.models]
        self.button.on_click(lambda _: self.ask(self.prompt.value))
        bar = w.HBox([self.button, self.temperature, self.seed, self.status], layout=w.Layout(flex_flow="row wrap"))
        keys = _keys(lambda content: self.ask(str(content.get("text", ""))))
        box = w.VBox([self.prompt, bar, w.HBox(side, layout=w.Layout(flex_flow="row wrap", width="100%")), keys])
        box.add_class("lab-ask")
        return box

    def ask(self, text: str) -> threading.Thread | None:
        """Ask all models, one after the other, in the background; None while they are still answering."""
        if not self.box or not self._busy.acquire(blocking=False):
            return None
        self.button.disabled = True
        for column in self.columns.values():
            column.value = ""
        how = {"temperature": self.temperature.value, "seed": self.seed.value}
        thread = threading.Thread(target=self._answer, args=(text, how), daemon=True)
        thread.start()
        return thread

    def _answer(self, text: str, how: Mapping[str, Any]) -> None:
        try:
            for name, model in self.models.items():
                self._say(name, "answering …" if name in self._asked else "loading the model …")
                try:
                    answer = model(text, **how)
                except LabError as error:  # one sentence, the same for every model as a rule
                    self.columns[name].value = _sentence(str(error))
                    continue
                except Exception as error:  # a view must outlive whatever a model does
                    self.columns[name].value = _sentence(f"{type(error).__name__}: {error}")
                    continue
                self._asked.add(name)
                self.columns[name].value = _shown(answer)
        finally:
            self.status.value = "Ctrl+Enter asks, too."
            self.button.disabled = False
            self._busy.release()

    def _say(self, name: str, what: str) -> None:
        self.status.value = f"{show.stage(name).text}: {what}"
        self.columns[name].value = f'<span style="{FAINT}">{show.esc(what)}</span>'

    def static(self) -> show.Html:
        """What stands in an executed page: stored answers to a few prompts."""
        if not self.models:
            return show.Html("<p>No model is finished yet.</p>", "No model is finished yet.")
        told = show.Html(f'<div style="{FAINT}">{show.esc(HINT)}</div>', HINT)
        return show.together([show.examples(self.examples, n=1), told])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> Any:
        seen = self.static()
        if not show.attached() or not self.models:
            return {"text/html": seen._repr_html_(), "text/plain": seen.text}
        return self.box._repr_mimebundle_(include=include, exclude=exclude, **kwargs)


def _keys(heard: Callable[[Mapping[str, Any]], Any]) -> Any:
    """A hidden widget that hears Ctrl+Enter anywhere in the box around it."""
    import anywidget

    class Keys(anywidget.AnyWidget):
        _esm = Path(__file__).with_suffix(".js")

    keys = Keys()
    keys.on_msg(lambda _, content, buffers: heard(content))
    return keys


def _sentence(text: str) -> str:
    return f'<div style="color:#d9603b;line-height:1.4">{show.esc(text)}</div>'


def _shown(answer: str | Answer) -> str:
    text = answer if isinstance(answer, str) else answer.text
    scores = {} if isinstance(answer, str) else answer.scores
    facts = [f"{name} {value:.2f}" for name, value in scores.items()]
    if isinstance(answer, Answer):
        facts += [f"{answer.tokens} tokens", *(["cut off"] if not answer.ended else [])]
    said = show.esc(text) if text.strip() else "<i>(an empty answer)</i>"
    below = f'<div style="{FAINT}">{show.esc(" · ".join(facts))}</div>' if facts else ""
    return f'<div style="white-space:pre-wrap;line-height:1.4">{said}</div>{below}'
