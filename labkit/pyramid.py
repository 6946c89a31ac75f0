"""The cake and the pyramid, drawn: what each stage was given, and who wrote the text that each model learned to predict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from labkit import costs, theme
from labkit.canvas import annotate, data, figure
from labkit.compare import CONTROLS
from labkit.theme import colour, duration, number, short, step

if TYPE_CHECKING:
    import plotly.graph_objects as go

WRITERS = {  # who writes: colour
    costs.WEB: colour("pretrain"),
    f"{costs.PEOPLE}, excellent": "#1b9e77",
    f"{costs.PEOPLE}, fine": "#3b8fd4",
    f"{costs.PEOPLE}, terse": "#7fa8cc",
    f"{costs.PEOPLE}, wrong": "#c58a1c",
    f"{costs.PEOPLE}, rude": "#d9603b",
    f"{costs.PEOPLE}, rambling": "#b07a4a",
    costs.PEOPLE: "#3b8fd4",
    costs.LESSONS: "#6f9c3d",
    **{who: colour(parent) for parent, who in reversed(costs.OWN_BY.items())},
    costs.OWN: "#a0a0a0",
}
COLUMNS = {
    "stage": "", "tokens": "tokens trained on", "sampled": "written", "scored": "scored", "seconds": "time", "flops": "operations",
    "bits": "bits of supervision", "who": "who wrote the text it learned to predict",
}  # fmt: skip


def cake(runs: Mapping[str, Any]) -> go.Figure:
    """LeCun's cake, measured: tokens, time, operations and bits of supervision of each stage, tiers on powers of ten."""
    chosen = {n: r for n, r in runs.items() if n not in (*CONTROLS, "judge")}
    found = costs.blocks(chosen)
    names = list(found)
    measures = {
        "tokens trained on": ("tokens", short),
        "seconds": ("seconds", duration),
        "operations": ("flops", short),
        "bits of supervision": ("bits", short),
    }
    known = {n: b["bits"] for n, b in found.items()}
    share = known.get("pretrain", 0) / (sum(known.values()) or 1)
    title = (
        f"Pretraining is the cake: {number(share, '.1%')} of the bits of supervision"
        if share
        else "What each stage was given"
    )
    fig = figure(
        title, subtitle="the width of a tier counts powers of ten; figures inside", height=130 + 46 * len(names)
    )
    for i, (measure, (key, words)) in enumerate(measures.items(), 1):
        _tiers(fig, i, len(measures), measure, {n: b[key] or 0 for n, b in found.items()}, words)
    fig.update_yaxes(
        showgrid=False, showline=False, categoryorder="array", categoryarray=[escape(step(n)) for n in names]
    )
    return fig.update_layout(bargap=0.1)


def _tiers(fig: go.Figure, i: int, of: int, measure: str, values: Mapping[str, float], words: Any) -> None:
    """One measure: a tier a stage, as wide as the power of ten of its figure."""
    widths = [round(math.log10(1 + max(0, v)), 4) for v in values.values()]
    fig.add_bar(
        x=widths, base=[-w / 2 for w in widths], y=[escape(step(n)) for n in values], orientation="h", xaxis=f"x{i}", width=0.86,
        marker={"color": [colour(n) for n in values], "opacity": 0.3, "cornerradius": 5},
        hovertext=[f"{escape(step(n))}: {words(v)} {measure.split()[0]}" for n, v in values.items()], hoverinfo="text",
        **data("stage measure value", [(n, measure, v) for n, v in values.items()]),
    )  # fmt: skip
    most, left = max(widths, default=1) or 1, (i - 1) / of
    domain, reach = [left + 0.01, left + 1 / of - 0.01], [-0.55 * most, 0.55 * most]
    axis = {"domain": domain, "visible": False, "range": reach, "anchor": "y"}
    fig.update_layout({"xaxis" if i == 1 else f"xaxis{i}": axis})
    figures = [
        {
            "x": 0,
            "xref": f"x{i}",
            "y": escape(step(n)),
            "text": f"<b>{words(v) if v else '–'}</b>",
            "font": {"size": 12},
        }
        for n, v in values.items()
    ]
    below = {
        "x": left + 0.5 / of,
        "xref": "paper",
        "y": -0.02,
        "yref": "paper",
        "yanchor": "top",
        "xanchor": "center",
        "text": measure,
    }
    annotate(fig, [*figures, below])


def authors(runs: Mapping[str, Any]) -> go.Figure:
    """Who wrote what each model was trained to predict: a bar a stage, a part a writer."""
    found = {n: b["text_by"] for n, b in costs.blocks(runs).items() if b["text_by"]}
    seen = [w for w in WRITERS if any(w in by for by in found.values())]
    seen += sorted({w for by in found.values() for w in by} - set(seen))
    named = " &nbsp; ".join(f'<span style="color:{_paint(w)}">● {escape(w)}</span>' for w in seen)
    lines = -(-len(seen) // 3)
    parts = named.split(" &nbsp; ")
    rows = "<br>".join(" &nbsp; ".join(parts[i : i + 3]) for i in range(0, len(parts), 3))
    fig = figure(
        "Who wrote the text that each model was trained to predict", subtitle=rows, height=110 + 18 * lines + 30 * len(found)
    )  # fmt: skip
    for who in seen:
        mine = {n: by[who] for n, by in found.items() if who in by}
        fig.add_bar(
            x=list(mine.values()), y=[escape(step(n)) for n in mine], orientation="h", marker={"color": _paint(who)}, width=0.7,
            hovertext=[f"{escape(step(n))}: {number(v, '.0%')} by {escape(who)}" for n, v in mine.items()], hoverinfo="text",
            **data("stage writer share", [(n, who, v) for n, v in mine.items()]),
        )  # fmt: skip
    fig.update_layout(barmode="stack", margin_t=60 + 18 * lines)
    fig.update_xaxes(range=[0, 1], tickvals=[0, 0.5, 1], ticktext=["0", "50 %", "100 %"])
    order = [escape(step(n)) for n in reversed(found)]
    return fig.update_yaxes(showgrid=False, categoryorder="array", categoryarray=order)


def _paint(who: str) -> str:
    return WRITERS.get(who) or theme.SPARE[sum(who.encode()) % len(theme.SPARE)]


def rows(runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as rows for a table (`COLUMNS`), every stage, controls too; figures are words already."""
    shown = {"tokens": short, "sampled": short, "scored": short, "seconds": duration, "flops": short, "bits": short}
    return [
        {"stage": step(n), **{k: words(b[k]) if b[k] else "–" for k, words in shown.items()}, "who": _who(b["text_by"])}
        for n, b in costs.blocks(runs).items()
    ]


def _who(by: Mapping[str, float]) -> str:
    """`people 100 %`: the qualities of people together, since the bar has them apart."""
    together: dict[str, float] = {}
    for who, share in by.items():
        together[who.split(", ")[0] if who.startswith(f"{costs.PEOPLE}, ") else who] = (
            together.get(who.split(", ")[0] if who.startswith(f"{costs.PEOPLE}, ") else who, 0.0) + share
        )
    if len(together) == 1:
        return next(iter(together))
    return (
        ", ".join(f"{number(share, '.0%')} {who}" for who, share in together.items()) or "none: no text was predicted"
    )
