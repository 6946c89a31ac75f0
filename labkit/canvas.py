"""The empty figure that all charts start from, and the few marks that they share: intervals, coloured names, data rows.

One transparent look serves light and dark pages. Every trace that holds data carries it a second time as plain rows
(`customdata`, named by `meta`), so that `csv` gives exactly what is drawn.
"""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from labkit.theme import FAINT, FONT, INK, colour, interval, label

MANY = 12  # rows from which on a picture is drawn closer, and says less of each


def figure(title: str, *, subtitle: str = "", x: str = "", y: str = "", height: int = 380) -> go.Figure:
    """An empty figure in the lab's look: 720 wide, transparent, grey text, hair-line grid, no legend."""
    axis = {
        "gridcolor": FAINT,
        "zeroline": False,
        "linecolor": FAINT,
        "ticks": "",
        "title_standoff": 8,
        "title_font_size": 12.5,
        "automargin": True,
    }
    return go.Figure(
        layout={
            "title": {
                "text": title,
                "subtitle": {"text": subtitle},
                "x": 0.01,
                "xanchor": "left",
                "y": 1,
                "yanchor": "top",
                "pad": {"t": 15},  # in pixels: however tall the figure is, the title stands in its margin
            },
            "title_font_size": 16,
            "title_subtitle_font_size": 12.5,
            "font": {"family": FONT, "size": 12.5, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "width": 720,
            "height": height,
            "margin": {"l": 60, "r": 30, "t": 74 if subtitle else 52, "b": 48},
            "xaxis": {**axis, "title": {"text": x}},
            "yaxis": {**axis, "title": {"text": y}},
            "showlegend": False,
            "hovermode": "closest",
            "template": "none",
        }
    )


def data(columns: str, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What a trace draws, as rows under names, for `csv` and the pointer."""
    return {"meta": columns.split(), "customdata": [list(r) for r in rows]}


def name(stage: str) -> str:
    return escape(label(stage))


def spans(names: Iterable[str]) -> str:
    """A legend as a line of coloured names, to stand under the title."""
    return " &nbsp; ".join(f'<span style="color:{colour(n)}">● {name(n)}</span>' for n in names)


def bar(value: Any, ci: Any) -> tuple[list[float], list[float]]:
    """Lengths of an error bar above and below."""
    return ([round(ci[1] - value, 6)], [round(value - ci[0], 6)]) if ci else ([0], [0])


def error(value: Any, ci: Any, paint: str) -> dict[str, Any]:
    up, down = bar(value, ci)
    return {"type": "data", "array": up, "arrayminus": down, "color": paint, "thickness": 2.2, "width": 5}


def annotate(fig: go.Figure, notes: Iterable[Mapping[str, Any]]) -> None:
    """Words on the figure, without arrows, all at once: each `add_annotation` looks at every one before it again."""
    fig.layout.annotations = (*fig.layout.annotations, *({"showarrow": False, **note} for note in notes))


def forest(
    fig: go.Figure,
    rows: Sequence[tuple[str, str, float, Any]],
    *,
    spec: str,
    columns: str,
    hollow: Collection[str] = (),
) -> go.Figure:
    """Points with intervals, one below the other; rows of (label, colour, value, interval), the figure written beside.

    Labels in `hollow` get hollow points.
    """
    notes = []
    for text, paint, value, ci in rows:
        fig.add_scatter(
            x=[value],
            y=[escape(text)],
            error_x=error(value, ci, paint),
            mode="markers",
            marker={
                "size": 10,
                "color": paint,
                "symbol": "circle-open" if text in hollow else "circle",
                "line": {"width": 2, "color": paint},
            },
            hovertext=f"{escape(text)}: {interval(value, ci, spec)}",
            hoverinfo="text",
            **data(columns, [(text, value, *(ci or (None, None)))]),
        )
        end = ci[1] if ci else value
        notes.append({
            "x": end, "y": escape(text), "text": f"<b>{interval(value, ci, spec)}</b>", "xanchor": "left", "xshift": 10,
            "font": {"color": paint, "size": 12.5},
        })  # fmt: skip
    annotate(fig, notes)
    fig.update_yaxes(
        showgrid=False,
        categoryorder="array",
        categoryarray=[escape(r[0]) for r in rows][::-1],
        range=[-0.6, len(rows) - 0.4],
    )
    fig.update_layout(height=max(180, 110 + (38 if len(rows) <= MANY else 25) * len(rows)))
    return fig


def csv(fig: go.Figure) -> str:
    """The figure's data as CSV: the rows that its traces carry, under their names; other traces give name, x and y."""
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    for trace in fig.data:
        if trace.meta is not None and trace.customdata is not None:
            columns, values = list(trace.meta), [list(r) for r in trace.customdata]
        elif trace.hoverinfo == "skip":  # a line that only leads the eye
            continue
        else:
            columns = ["series", "x", "y"]
            values = [[trace.name, x, y] for x, y in zip(trace.x, trace.y, strict=True)]
        names += [c for c in columns if c not in names]
        rows += [dict(zip(columns, v, strict=True)) for v in values]
    out = io.StringIO()
    writer = csv_module.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
