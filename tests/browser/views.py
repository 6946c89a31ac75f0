"""Every widget over given texts, as prompts and as answers, without a model: for what must hold of all of them alike.

The kernel of a page imports this; nothing here knows of a browser. A new widget is one function more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import synthetic

from labkit import runs, show
from labkit.compare import Comparison
from labkit.feedback.session import Item, Session
from labkit.feedback.store import VoteStore
from labkit.records import Answer, Prompt
from widgets.ask import AskView
from widgets.compare import CompareView
from widgets.label import LabelView
from widgets.name import NameView
from widgets.retrain import RetrainView
from widgets.runs import RunPicker
from widgets.tokens import TokenView
from widgets.training import TrainingView

Texts = Sequence[str]


def pairs(folder: Path, texts: Texts) -> LabelView:
    """Each text as a prompt and as both answers to it."""
    return _labeller(folder, "pair", [(t, [t + " A", t + " B"]) for t in texts], texts)


def ranking(folder: Path, texts: Texts) -> LabelView:
    """The texts as answers, eight to be put in order at a time."""
    return _labeller(folder, "ranking", [(eight[0], eight) for eight in _eights(texts)], texts)


def thumbs(folder: Path, texts: Texts) -> LabelView:
    """The texts in answers that are good or bad, eight in one."""
    return _labeller(folder, "thumb", [(eight[0], ["\n".join(eight)]) for eight in _eights(texts)], texts)


def _labeller(folder: Path, mode: str, asked: Sequence[tuple[str, Texts]], texts: Texts) -> LabelView:
    folder.mkdir(parents=True, exist_ok=True)
    items = [Item.of(Prompt.of(prompt, kind="typed"), answers) for prompt, answers in asked]
    store = VoteStore(f"sqlite:///{folder / 'votes.sqlite'}")
    return LabelView(Session(store, items, "Ada", mode, repeats=0), reasons=texts[:6])


def _eights(texts: Texts) -> list[Texts]:
    return [texts[i : i + 8] for i in range(0, len(texts), 8)]


def compare(folder: Path, texts: Texts) -> CompareView:
    """The texts as prompts that two models have answered; asked live, each model says all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [Prompt(id=f"p{i}", messages=({"role": "user", "content": t},), kind="fact") for i, t in enumerate(texts)]
    authors = {"sft": " before", "dpo": " after"}

    def answers(author: str) -> dict[str, tuple[Answer, ...]]:
        scores = {"gold": 0.5, "reward": 1.5}
        return {
            p.id: (Answer(prompt=p, text=p.text + authors[author], author=author, n=0, tokens=9, scores=scores),)
            for p in prompts
        }

    def says(author: str) -> Callable[..., Answer]:
        def model(text: str, *, on_token: Callable[[str], Any], **how: Any) -> Answer:
            for n in range(len(texts)):
                on_token("\n".join(texts[:n]))
            return Answer(prompt=Prompt.of(text, kind="typed"), text="\n".join(texts), author=author, n=0, tokens=9)

        return model

    comparison = Comparison(
        split="validation", score="gold", reference="sft", prompts=tuple(prompts),
        answers={author: answers(author) for author in authors}, runs={}, samples=100,
    )  # fmt: skip
    store = VoteStore(f"sqlite:///{folder / 'votes.sqlite'}")
    return CompareView(comparison, models={author: says(author) for author in authors}, votes=store, seed=1)


def tokens(folder: Path, texts: Texts) -> TokenView:
    """The texts as the tokens of an answer, and as what else could have stood there."""
    rows = [
        {
            "text": text, "whole": "", "mark": False, "logp_a": -2.0, "logp_b": -1.5, "change": 0.5 - i % 3, "kl": 0.1 * i,
            "entropy_a": 1.5, "entropy_b": 1.25, "rank_a": 2, "rank_b": 1, "reward": 0.5, "value": 0.25, "advantage": 0.5,
            "top_a": [[text, 0.2], [" the", 0.1]], "top_b": [[text, 0.3], [" a", 0.1]],
        }
        for i, text in enumerate(texts)
    ]  # fmt: skip
    n = len(rows)
    totals = {"tokens": n, "logp_a": -2.0 * n, "logp_b": -1.5 * n, "change": 0.5, "kl": 1.0, "reward": 0.5}
    sides = {
        side: {"name": name, "id": f"{name}-0a1b2c", "label": name.upper()}
        for side, name in (("a", "sft"), ("b", "dpo"))
    }
    about = {"prompt": texts[0], "answer": "".join(texts), "notes": [texts[0]], "totals": totals}
    return TokenView({**about, **sides, "tokens": rows})


def training(folder: Path, texts: Texts) -> TrainingView:
    """A training on its way whose models answer with the texts."""
    row = {"of": 20, "train/grad_norm": 1.0}
    rows = [{**row, "step": i, "seconds": i / 2, "train/loss": 2 - i / 20} for i in range(1, 11)]
    said = [{"prompt": t, "answer": t, "gold": 0.5} for t in texts]
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    fake = SimpleNamespace(
        title="Direct preference optimisation", name="dpo", watch=("train/loss",), rows=rows, listeners=[], state="running",
        samples=[{"step": 5, "answers": said}, {"step": 10, "answers": said}], said=texts[0], run=None, left=lambda: 5.0,
        stop=nothing, discard=nothing, wait=nothing, picture=lambda: show.Html("", ""),
    )  # fmt: skip
    return TrainingView(fake)


def retrain(folder: Path, texts: Texts) -> RetrainView:
    """A retraining that is over, with the texts as prompts, answered with them before and after."""
    row = {
        "measure": "words in an answer",
        "before": "12.0",
        "after": "7.5",
        "difference": "−4.5 [−5.5, −3.5]",
        "clear": True,
    }
    held_out = {
        "judge": "reward model",
        "on": "your votes",
        "n": 6,
        "before": "50 % [20, 80]",
        "after": "83 % [50, 100]",
    }
    told = {
        "title": "Words in an answer: 12.0 → 7.5", "said": texts[0], "wins": texts[0], "rows": [row], "held_out": [held_out],
        "examples": [{"prompt": t, "before": t + " before", "after": t + " after"} for t in texts],
        "runs": ["dpo_yours-0a1b2c"],
    }  # fmt: skip
    task = {
        "name": "short",
        "title": "Vote short",
        "rule": "The shorter answer wins.",
        "measure": "words",
        "of": 30,
        "method": "dpo",
    }
    counts = {"pairs": 24, "thumbs": 3, "edits": 0, "held_out": 6, "votes": 30}
    loop = SimpleNamespace(
        methods={"dpo": "DPO, from pairs"}, mixes={"mine": "your votes alone"}, listeners=[], rater="Ada",
        exercises=lambda: [task], counts=lambda exercise="": counts, last=SimpleNamespace(told=lambda: told), warm=lambda: None,
    )  # fmt: skip
    return RetrainView(loop)


def picker(folder: Path, texts: Texts) -> RunPicker:
    """Finished runs with the texts as notes; the first two are chosen."""
    names = list(synthetic.COST)
    for i, text in enumerate(texts):
        made = synthetic.run(folder / "tiny", names[i % len(names)], n=1, suffix=f"{i:06x}")
        runs.note(made, text=text)
    return RunPicker(folder, chosen=names[:2])


def name(folder: Path, texts: Texts) -> NameView:
    """A page that asks for a name; whoever gives one sees a training."""
    return NameView(lambda name: training(folder, texts[:1]))


def ask(folder: Path, texts: Texts) -> AskView:
    """One model a text, which it says to everything."""
    return AskView({f"m{i}": lambda text, text_=t, **how: text_ for i, t in enumerate(texts)})


VIEWS: dict[str, Callable[[Path, Texts], Any]] = {
    "pairs": pairs,
    "ranking": ranking,
    "thumbs": thumbs,
    "compare": compare,
    "tokens": tokens,
    "training": training,
    "retrain": retrain,
    "runs": picker,
    "name": name,
    "ask": ask,
}
