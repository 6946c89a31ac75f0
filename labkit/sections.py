"""The sections of the report: for each a few plain sentences, its figures and its tables."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import charts, drawings, pyramid, show, theme
from labkit.compare import CONTROLS, Comparison
from labkit.markup import Html
from labkit.runs import Run

WORTH = ("gold", "gold_minus_sft", "win_over_sft", "win_over_base", "web_nll")
MANNER = ("correct", "on_topic", "refuse_harm", "over_refuse", "rude", "tokens", "distinct_2", "kl")


@dataclass(frozen=True)
class Figure:
    """A figure of the page: its words as HTML, its drawing as JSON, its data as CSV."""

    name: str
    title: str
    subtitle: str
    drawing: Html
    csv: str
    height: int

    @property
    def uri(self) -> str:
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.csv.encode()).decode()}"

    @classmethod
    def of(cls, name: str, fig: Any) -> Figure:
        """The words leave the drawing, so that they wrap on a phone; what is left stretches with the page."""
        words, data = fig.layout.title, charts.csv(fig)
        title, subtitle = words.text or "", (words.subtitle.text or "") if words.subtitle else ""
        fig.update_layout(title=None, width=None, autosize=True, margin_t=14, height=fig.layout.height - 44)
        fig.update_traces(customdata=None, meta=None)
        drawing = fig.to_json().replace("<", "\\u003c").replace("\u2028", "\\u2028")
        return cls(name, title, subtitle, Html(drawing, title), data, fig.layout.height)


@dataclass(frozen=True)
class Section:
    """A heading, a few sentences for somebody new to it, then figures and tables in order."""

    id: str
    title: str
    lead: str
    blocks: tuple[Figure | Html, ...]

    @property
    def figures(self) -> list[Figure]:
        return [b for b in self.blocks if isinstance(b, Figure)]


def results(c: Comparison, rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """The ladder, wins, kinds of prompt, and what alignment cost as a predictor."""
    yield Section(
        "ladder",
        "The ladder",
        f"Every model answers the same prompts, and the same judge ({c.score}) scores every answer. Hollow points are controls: "
        "they show what more of the same training, or training on noise, would have bought.",
        (
            Figure.of("ladder", charts.ladder(rows, score=c.score)),
            show.ladder(rows, score=c.score, columns=WORTH),
            show.ladder(rows, score=c.score, columns=MANNER),
        ),
    )
    wins = [
        Figure.of(f"wins_over_{against}", charts.win_rate(rows, against=against))
        for against, key in (("sft", "win_over_sft"), ("pretrain", "win_over_base"))
        if sum(r[key] is not None and r["stage"] != against for r in rows)
    ]
    if wins:
        yield Section(
            "wins",
            "Who wins",
            "A mean can hide much. So take two answers to one prompt, one from each model, and ask which is better: "
            "50 % means that nobody could tell the models apart.",
            tuple(wins),
        )
    yield Section(
        "kinds",
        "Where it helped",
        "The same scores by kind of prompt. A step that helps on the whole may help little, or do "
        "harm, on one kind. Of a long ladder the chief rungs are drawn; page 13_compare has them all.",
        (Figure.of("by_kind", charts.by_kind(c.by_kind(), score=c.score)),),
    )
    if sum(r["web_nll"] is not None for r in rows if r["stage"] != "prompted") > 1:
        yield Section(
            "predictor",
            "What alignment cost as a predictor",
            "Do language models just predict text? The base model does, and nothing else. Each later step is paid for in part with "
            "that skill; the bill is small where the step moved the model little.",
            (Figure.of("predictor", charts.predictor(rows)),),
        )


def reward(own: Mapping[str, Any], judge: Mapping[str, Any]) -> Section:
    """The reward model's card: its accuracy beside a simple rule, and whether its confidence can be trusted."""
    rows = [
        {"model": "reward model", **own},
        *([{"model": "judge (other half of the pairs)", **judge}] if judge else []),
    ]
    heads = {
        "model": "",
        "reward_accuracy": "right on held-out pairs",
        "longer_wins_accuracy": "“the longer one wins”",
        "difference": "difference",
        "n_pairs": "pairs",
    }
    shares = dict.fromkeys(("reward_accuracy", "longer_wins_accuracy"), ".1%") | {"difference": "+.1%"}
    blocks: list[Figure | Html] = [show.table(rows, heads, shares)]
    if own.get("calibration"):
        blocks.append(Figure.of("calibration", charts.calibration(own["calibration"])))
    lead = (
        "PPO is as good as the reward model that it climbs. It was trained on rankings and is asked here about pairs that it never "
        "saw; beside it stands the simplest rule that people fall for. Annotators disagree with each other, so nobody can reach 100 %."
    )
    return Section("reward", "The reward model", lead, tuple(blocks))


def optimisation(c: Comparison | None, rows: Sequence[Mapping[str, Any]], runs: Mapping[str, Run]) -> Iterator[Section]:
    """Proxy against gold while PPO ran, the frontier of gain and distance, and answers that only the proxy likes."""
    blocks: list[Figure | Html] = []
    if "ppo" in runs:
        fig = charts.over_optimisation(runs["ppo"].metrics())
        if fig.data and len(fig.data[0].y):
            blocks.append(Figure.of("over_optimisation", fig))
    if c and sum(r["kl"] is not None and r["stage"] not in ("pretrain", *CONTROLS) for r in rows) > 1:
        blocks.append(Figure.of("kl_frontier", charts.kl_frontier(rows, score=c.score)))
    if c and {"ppo", c.reference} <= set(c.authors) and (found := c.hacked("ppo", 2)):
        blocks.append(_heading("Answers that the proxy prefers to SFT’s, and the judge does not"))
        blocks += [
            _example(
                e,
                ("sft", "ppo"),
                f"proxy {e['reward_delta']:+.2f}, {c.score} {e['delta']:+.2f} against SFT".replace("-", "−"),
            )
            for e in found
        ]
    if blocks:
        lead = (
            "A reward model is a proxy for what people want. Climb it a little and both rise; climb it too far and only the proxy "
            "does (Gao et al. 2022). The KL penalty is the rope: it says how far a model may move from SFT."
        )
        yield Section("optimisation", "Climbing a proxy", lead, tuple(blocks))


def dialogue(rows: Sequence[Mapping[str, Any]], c: Comparison) -> Section:
    """Conversations of two and three turns: who answers the last question better, and whether the earlier turns are why."""
    shown = [{**r, "pair": f"{theme.label(r['author'])} against {theme.label(r['against'])}"} for r in rows]
    heads = {"pair": "", "what": "", "n": "conversations", "gold": "gold", "gold_of_other": "of the other", "difference": "difference", "wins": "wins"}  # fmt: skip
    formats = {"gold": ".2f", "gold_of_other": ".2f", "difference": "+.2f", "wins": ".0%"}
    blocks: list[Figure | Html] = [show.table(shown, heads, formats)]
    blocks.append(Figure.of("dialogues", charts.by_kind(c.by_kind())))
    blocks += [_example(e, c.authors, e["why"].replace("_", " "), n=1) for e in c.best_examples(4)]
    lead = (
        "The last question of these conversations means something only by what was said before: “And where does it live?” The blind "
        "control was tuned on the same conversations and hears their last turn alone: what it lacks is what the context is worth."
    )
    return Section("dialogue", "Going on talking", lead, tuple(blocks))


def cake(runs: Mapping[str, Run]) -> Section:
    """What each stage was given to learn from."""
    lead = (
        "Yann LeCun’s cake: self-supervised learning is the cake, supervised learning the icing, reinforcement learning the "
        "cherry. A token of text can tell at most log₂ of the vocabulary in bits, a preference between two answers one bit. Operations: "
        "6 a weight and token of training, 2 of writing or scoring, embeddings not counted. Then who wrote what each model learned to "
        "predict: after pretraining hardly any of it is the web. Where pairs are compared, half of the text is what it learned to avoid."
    )
    drawn = (Figure.of("cake", charts.cake(runs)), Figure.of("authors", charts.authors(runs)))
    return Section("cake", "The cake", lead, (*drawn, show.table(pyramid.rows(runs), pyramid.COLUMNS)))


def training(runs: Mapping[str, Run], keys: Mapping[str, Sequence[str]]) -> Iterator[Section]:
    """The curves of every training, controls aside."""
    figures = []
    for name, run in runs.items():
        if name in (*CONTROLS, "judge") or run.manifest["stage"] not in keys:
            continue
        rows = run.metrics()
        known = [k for k in keys[run.manifest["stage"]] if sum(k in r for r in rows) > 1][:3]
        if known:
            figures.append(
                Figure.of(f"curves_{name}", charts.curves({name: rows}, known, title=_trained(name, rows, known[0])))
            )
    if figures:
        yield Section("curves", "How training went", "Faint: as logged. Strong: a running average.", tuple(figures))


def _trained(name: str, rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """`SFT: loss 2.31 → 0.84 in 210 steps`: means of the first and last twentieth."""
    values = [r[key] for r in rows if key in r]
    few = max(1, len(values) // 20)
    first, last = sum(values[:few]) / few, sum(values[-few:]) / few
    ends = f"{theme.number(first, '.2f')} → {theme.number(last, '.2f')}"
    text = f"{theme.step(name)}: {key.split('/')[-1].replace('_', ' ')} {ends} in {rows[-1]['of']} steps"
    return text[0].upper() + text[1:]


def samples(c: Comparison) -> Section:
    """Answers side by side: a prompt of each kind, then the biggest wins and losses of the best model."""
    shown = [a for a in c.authors if a not in CONTROLS]
    blocks: list[Figure | Html] = [
        _example(e, shown, e["why"].replace("_", " "), n=1)
        for e in c.best_examples(min(12, len({p.kind for p in c.prompts})))
    ]
    aligned = [a for a in ("ppo", "dpo") if a in c.authors]
    if aligned and c.reference in c.authors:
        best = max(aligned, key=lambda a: float(c.gold(a).mean()))
        pair = (c.reference, best)
        ends = c.extremes(best, 2)
        for title, sign in (("biggest wins over", 1), ("biggest losses to", -1)):
            some = [e for e in ends if e["delta"] * sign > 0]
            if some:
                blocks.append(_heading(f"{theme.label(best)}’s {title} {theme.label(c.reference)}"))
                blocks += [_example(e, pair, f"{c.score} {theme.number(e['delta'], '+.2f')}") for e in some]
    lead = (
        "One prompt of each kind, chosen by a rule that nobody can steer (the lowest digest of its id), each model’s first "
        "answer; then the extremes, where a mean says least."
    )
    return Section("samples", "In their own words", lead, tuple(blocks))


def _heading(text: str) -> Html:
    return Html(f"<h3>{show.esc(text)}</h3>", text)


def _example(example: Mapping[str, Any], authors: Sequence[str], why: str, *, n: int | None = None) -> Html:
    given = {a: example["answers"][a][:n] for a in authors if a in example["answers"]}
    return show.side_by_side(example["prompt"], given, why=why)


def lineage(runs: Mapping[str, Run]) -> Section:
    """Which run was made from which, with ids, time and memory."""
    svg = drawings.lineage(runs)
    rows = [
        {
            "run": show.stage(name, theme.step(name)),
            "id": Html(f"<code>{show.esc(r.id)}</code>", r.id),
            "from": ", ".join(theme.step(p) for p in r.manifest["parents"]) or "random weights or a pretrained model",
            "time": Html(
                theme.duration(r.manifest["seconds"]).replace(" ", "&nbsp;"), theme.duration(r.manifest["seconds"])
            ),
            "peak_mb": r.manifest.get("peak_mb"),
        }
        for name, r in runs.items()
    ]
    heads = {"run": "run", "id": "folder", "from": "made from", "time": "time", "peak_mb": "memory (MB)"}
    total = sum(r.manifest["seconds"] for r in runs.values())
    lead = f"{len(runs)} runs, {theme.duration(total)} of computing in all. Each stands in a folder of its own; the table names all that it was made from, arrows only the last step."
    drawn = Html(f'<div class="wide">{svg}</div>', "lineage")
    return Section("lineage", "Where each model comes from", lead, (drawn, show.table(rows, heads)))
