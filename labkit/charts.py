"""Figures of results, from plain data: the ladder, win rates, kinds of prompt, the frontier, the cake, agreement.

Titles say what is seen; intervals are drawn wherever they are known. Curves, calibration and histograms stand in `curves`
and are reached from here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from labkit.canvas import MANY, bar, csv, data, error, figure, forest, name, spans
from labkit.compare import CONTROLS, highest
from labkit.costs import bits
from labkit.curves import against, calibration, curves, histogram, over_optimisation
from labkit.drawings import lineage, live_svg
from labkit.pyramid import authors, cake
from labkit.theme import FAINT, INK, colour, interval, label, leaders, listed, model, number

__all__ = [
    "against", "agreement", "authors", "bits", "by_kind", "cake", "calibration", "csv", "curves", "histogram", "kl_frontier", "ladder", "lineage",
    "live_svg", "over_optimisation", "predictor", "win_rate",
]  # fmt: skip

Rows = Iterable[Mapping[str, Any]]
PERCENT = {"tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", "25 %", "50 %", "75 %", "100 %"]}
CHIEF = ("pretrain", "prompted", "sft", "best_of_n", "ppo", "dpo")
CLIMB = (("pretrain", "prompted"), ("prompted", "sft"), ("sft", "ppo"), ("sft", "dpo"))


def ladder(rows: Rows, *, score: str = "gold") -> go.Figure:
    """The climb: each model's mean score with its 95 % interval; hollow points are controls, the dotted line is SFT."""
    known = [r for r in rows if r.get("gold") is not None]
    best = highest(dict(r) for r in known)
    title = "No model was scored"
    if best:
        title = escape("{} at {}".format(*leaders([r["stage"] for r in best], [r["gold"] for r in best])))
    said = f"mean {score} score of each model's answers, 95 % interval over prompts"
    if len(known) > MANY:
        return _long_ladder(figure(title, subtitle=said, x=f"{score} score"), known)
    fig = figure(title, subtitle=said, y=f"{score} score")
    at = {r["stage"]: r["gold"] for r in known}
    for a, b in CLIMB:
        if a in at and b in at:
            line = {"color": colour(b), "width": 2.5}
            fig.add_scatter(
                x=[name(a), name(b)], y=[at[a], at[b]], mode="lines", line=line, opacity=0.35, hoverinfo="skip"
            )
    if "sft" in at:
        fig.add_hline(y=at["sft"], line={"color": colour("sft"), "width": 1, "dash": "dot"}, opacity=0.6)
    for r in known:
        paint, control = colour(r["stage"]), r["stage"] in CONTROLS
        fig.add_scatter(
            x=[name(r["stage"])],
            y=[r["gold"]],
            error_y=error(r["gold"], r.get("gold_ci"), paint),
            mode="markers",
            marker={
                "size": 10,
                "color": paint,
                "symbol": "circle-open" if control else "circle",
                "line": {"width": 2, "color": paint},
            },
            hovertext=f"{name(r['stage'])}: {interval(r['gold'], r.get('gold_ci'))}",
            hoverinfo="text",
            **data("stage gold low high", [(r["stage"], r["gold"], *(r.get("gold_ci") or (None, None)))]),
        )
        fig.add_annotation(
            x=name(r["stage"]), y=(r.get("gold_ci") or (0, r["gold"]))[1], text=f"<b>{number(r['gold'], '.2f')}</b>", showarrow=False,
            yanchor="bottom", yshift=5, font={"color": paint, "size": 13},
        )  # fmt: skip
    fig.update_layout(margin_b=30)
    order = [name(r["stage"]) for r in known]
    fig.update_xaxes(showgrid=False, categoryorder="array", categoryarray=order, range=[-0.5, len(order) - 0.5])
    return fig


def _long_ladder(fig: go.Figure, rows: Sequence[Mapping[str, Any]]) -> go.Figure:
    """The same of many models: one below the other, the dotted line is SFT."""
    for r in rows:
        if r["stage"] == "sft":
            fig.add_vline(x=r["gold"], line={"color": colour("sft"), "width": 1, "dash": "dot"}, opacity=0.6)
    points = [(label(r["stage"]), colour(r["stage"]), r["gold"], r.get("gold_ci")) for r in rows]
    forest(fig, points, spec=".2f", columns="stage gold low high", hollow={label(n) for n in CONTROLS})
    ends = [end for r in rows for end in r.get("gold_ci") or [r["gold"]]]
    room = max(ends) - min(ends) or 1
    return fig.update_xaxes(range=[min(ends) - 0.04 * room, max(ends) + 0.3 * room])


def win_rate(rows: Rows, *, against: str = "sft") -> go.Figure:
    """How often each model's answer is preferred to the reference's (ties half), with 95 % intervals; the line is even."""
    key = {"sft": "win_over_sft", "pretrain": "win_over_base"}[against]
    known = [r for r in rows if r.get(key) is not None and r["stage"] != against]
    over = [r for r in known if (r.get(f"{key}_ci") or [0])[0] > 0.5]
    names = [model(r["stage"]) for r in over]
    who = "every model" if len(over) == len(known) > 2 else listed(names) or "no model"
    wins = "wins" if len(over) < 2 or who == "every model" else "win"
    fig = figure(
        escape(f"{who[0].upper() + who[1:]} {wins} over {model(against)} more often than not"),
        subtitle=f"share of answers preferred to those of {escape(model(against))} on the same prompt, ties half, 95 % interval",
        x=f"wins over {escape(model(against))}",
    )
    fig.add_vline(x=0.5, line={"color": INK, "width": 1, "dash": "dot"})
    points = [(label(r["stage"]), colour(r["stage"]), r[key], r.get(f"{key}_ci")) for r in known]
    forest(fig, points, spec=".0%", columns="stage wins low high")
    return fig.update_xaxes(range=[-0.02, 1.3], **PERCENT)


def by_kind(rows: Rows, *, score: str = "gold") -> go.Figure:
    """The mean score by kind of prompt, a colour a model, with 95 % intervals; controls are left out, and of many models
    all but the chief ones."""
    rows = [r for r in rows if r["gold"] is not None and r["stage"] not in CONTROLS]
    kinds = sorted({r["kind"] for r in rows}, key=lambda k: max(r["gold"] for r in rows if r["kind"] == k))
    names = list(dict.fromkeys(r["stage"] for r in rows))
    if len(names) > MANY:
        names = [n for n in names if n in CHIEF]
    fig = figure(
        "Which kinds of prompt each step helped",
        subtitle=spans(names),
        x=f"mean {score} score",
        height=120 + 54 * len(kinds),
    )
    for n, who in enumerate(names):
        mine = [r for r in rows if r["stage"] == who]
        ys = [kinds.index(r["kind"]) + 0.32 - 0.64 * (n + 0.5) / len(names) for r in mine]
        bars = [bar(r["gold"], r["gold_ci"]) for r in mine]
        fig.add_scatter(
            x=[r["gold"] for r in mine],
            y=ys,
            error_x={
                "type": "data",
                "array": [b[0][0] for b in bars],
                "arrayminus": [b[1][0] for b in bars],
                "color": colour(who),
                "thickness": 1.4,
                "width": 0,
            },
            mode="markers",
            marker={"size": 8, "color": colour(who)},
            hovertext=[f"{name(who)} · {escape(r['kind'])}: {interval(r['gold'], r['gold_ci'])}" for r in mine],
            hoverinfo="text",
            **data(
                "stage kind gold low high", [(who, r["kind"], r["gold"], *(r["gold_ci"] or ("", ""))) for r in mine]
            ),
        )
    for i in range(len(kinds) - 1):
        fig.add_hline(y=i + 0.5, line={"color": FAINT, "width": 1})
    labels = [escape(k.replace("_", " ")) for k in kinds]
    return fig.update_yaxes(
        tickvals=list(range(len(kinds))), ticktext=labels, showgrid=False, range=[-0.5, len(kinds) - 0.5]
    )


def kl_frontier(rows: Rows, *, score: str = "gold") -> go.Figure:
    """What each model gained for how far it moved: KL to SFT against the mean score, both with 95 % intervals."""
    known = [r for r in rows if r.get("kl") is not None and r.get("gold") is not None and r["stage"] != "pretrain"]
    if len(known) > MANY:
        known = [r for r in known if r["stage"] not in CONTROLS]
    fig = figure(
        "What was gained, and how far the model moved for it",
        subtitle=f"mean {score} score against KL divergence from SFT; up and to the left is better",
        x="KL to SFT (nats an answer)",
        y=f"{score} score",
    )
    for r in known:
        paint = colour(r["stage"])
        fig.add_scatter(
            x=[r["kl"]],
            y=[r["gold"]],
            error_x=error(r["kl"], r.get("kl_ci"), paint),
            error_y=error(r["gold"], r.get("gold_ci"), paint),
            mode="markers+text",
            marker={"size": 12, "color": paint, "symbol": "circle-open" if r["stage"] in CONTROLS else "circle"},
            text=[f"  <b>{name(r['stage'])}</b>"],
            textposition="top right",
            textfont={"color": paint, "size": 13},
            hovertext=f"{name(r['stage'])}: {score} {interval(r['gold'], r.get('gold_ci'))}, KL {number(r['kl'], '.2f')}",
            hoverinfo="text",
            **data("stage kl gold", [(r["stage"], r["kl"], r["gold"])]),
        )
    most = max((r["kl"] for r in known), default=1)
    return fig.update_xaxes(range=[-0.06 * (most or 1), 1.22 * (most or 1)])


def predictor(rows: Rows) -> go.Figure:
    """What each model is worth as a plain predictor of web text: nats a token, lower is better."""
    known = [r for r in rows if r.get("web_nll") is not None and r["stage"] != "prompted"]
    points = [(label(r["stage"]), colour(r["stage"]), r["web_nll"], None) for r in known]
    at = {r["stage"]: r["web_nll"] for r in known}
    worst = max((r for r in known if r["stage"] not in CONTROLS), key=lambda r: r["web_nll"], default=None)
    title = "What alignment cost as a predictor of web text"
    if worst and "pretrain" in at and worst["stage"] != "pretrain":
        lost = worst["web_nll"] - at["pretrain"]
        title = f"As a predictor of web text, {name(worst['stage'])} is {number(lost, '.2f')} nats a token worse than the base"
    fig = figure(
        title, subtitle="negative log-likelihood of held-out web text; lower predicts better", x="nats a token"
    )
    forest(fig, points, spec=".3f", columns="stage web_nll low high")
    low, high = min(at.values(), default=0), max(at.values(), default=1)
    room = (high - low) or 0.1
    return fig.update_xaxes(range=[low - 0.12 * room, high + 0.3 * room])


def agreement(rows: Rows) -> go.Figure:
    """Who agrees with whom how often: rows of who, agreement and, where known, ci and n; the line is chance."""
    rows = list(rows)
    fig = figure("Who agrees with whom", subtitle="share of pairs on which both prefer the same answer", x="agreement")
    fig.add_vline(x=0.5, line={"color": INK, "width": 1, "dash": "dot"})
    points = [(r["who"], colour("preferences"), r["agreement"], r.get("ci")) for r in rows]
    forest(fig, points, spec=".0%", columns="who agreement low high")
    return fig.update_xaxes(range=[0, 1.25], **PERCENT)
