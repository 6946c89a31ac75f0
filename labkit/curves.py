"""Figures of a run on its way and of spreads: training curves, proxy against gold, calibration, histograms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from labkit.canvas import data, figure, name, spans
from labkit.statistics import wilson
from labkit.theme import FAINT, INK, colour, number


def smooth(values: Sequence[float], *, window: float | None = None) -> np.ndarray:
    """A running average, a bell about `window` values wide (a twentieth of them unless given), narrower at the ends."""
    v = np.asarray(values, dtype=float)
    if not len(v):
        return v
    window = max(1.0, window or len(v) / 20)
    reach = int(np.ceil(1.5 * window)) if window > 1 else 0
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (window / 2)) ** 2)
    weigh = lambda x: np.convolve(x, bell)[reach : reach + len(v)]  # noqa: E731
    return weigh(v) / weigh(np.ones(len(v)))


def curves(
    metrics_by_run: Mapping[str, Iterable[Mapping[str, Any]]], keys: Sequence[str], *, title: str = ""
) -> go.Figure:
    """Training curves, a panel a metric, a colour a run: faint as logged, strong as a running average."""
    table = {run: list(rows) for run, rows in metrics_by_run.items()}
    keys = [k for k in keys if any(k in row for rows in table.values() for row in rows)]
    across = min(3, max(1, len(keys)))
    down = max(1, -(-len(keys) // across))
    fig = figure(title or "How training went", subtitle=spans(table) if len(table) > 1 else "", height=90 + 190 * down)
    layout: dict[str, Any] = {}
    plain = {
        "gridcolor": FAINT,
        "zeroline": False,
        "linecolor": FAINT,
        "ticks": "",
        "tickfont": {"size": 11},
        "nticks": 5,
    }
    for i, key in enumerate(keys):
        row, column = divmod(i, across)
        n = "" if i == 0 else str(i + 1)
        left, high = column / across, 1 - row / down
        x_range, y_range = (
            [left + 0.02 * (column > 0), left + 1 / across - 0.03],
            [high - 1 / down + 0.16 / down * (row < down - 1), high - 0.1 / down],
        )
        layout[f"xaxis{n}"] = {**plain, "domain": x_range, "anchor": f"y{n}", "showgrid": False}
        layout[f"yaxis{n}"] = {**plain, "domain": y_range, "anchor": f"x{n}"}
        fig.add_annotation(
            x=x_range[0], y=y_range[1], xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
            text=f"<b>{escape(key)}</b> by step", font={"size": 12.5},
        )  # fmt: skip
        for run, rows in table.items():
            points = [(r["step"], r[key]) for r in rows if key in r]
            if not points:
                continue
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            axes = {"xaxis": f"x{n}", "yaxis": f"y{n}", "mode": "lines"}
            thin = {"color": colour(run), "width": 1}
            rows_of = data("run metric step value", [(run, key, x, y) for x, y in points])
            fig.add_scatter(x=xs, y=ys, line=thin, opacity=0.3, hoverinfo="skip", **axes, **rows_of)
            thick = {"color": colour(run), "width": 2.4}
            fig.add_scatter(x=xs, y=smooth(ys).round(5).tolist(), line=thick, name=name(run), hoverinfo="skip", **axes)
    fig.update_layout(margin_b=26)
    return fig.update_layout(layout)


def _series(metrics: Iterable[Mapping[str, Any]]) -> tuple[str, list[Mapping[str, Any]]]:
    """The prefix under which proxy and gold were measured, and the rows that have both."""
    rows = list(metrics)
    for prefix in ("eval", "rollout", "objective"):
        found = [r for r in rows if f"{prefix}/reward" in r and f"{prefix}/gold" in r]
        if found:
            return prefix, found
    return "", []


def over_optimisation(metrics: Iterable[Mapping[str, Any]]) -> go.Figure:
    """Proxy reward and gold while PPO climbs the proxy (Gao et al. 2022), against KL where it grows, else against steps."""
    prefix, rows = _series(metrics)
    window = len(rows) / 10 if prefix != "eval" else 1
    proxy, gold = (smooth([r[f"{prefix}/{k}"] for r in rows], window=window) for k in ("reward", "gold"))
    steps = np.array([r["step"] for r in rows], dtype=float)
    kl = smooth([r.get(f"{prefix}/kl", r.get("objective/kl", math.nan)) for r in rows], window=window)
    grows = len(rows) > 2 and not np.isnan(kl).any() and kl.std() > 0 and np.corrcoef(steps, kl)[0, 1] > 0.8
    fig = figure(
        _finding(proxy, gold),
        subtitle=f'<span style="color:{colour("reward")}">● proxy: the reward model</span> &nbsp; '
        f'<span style="color:{colour("sft")}">● gold: the quality itself</span>',
        x="KL to SFT (nats an answer)" if grows else "step",
        y="score",
    )
    x = kl if grows else steps
    for text, paint, values, key in (("proxy", "reward", proxy, "reward"), ("gold", "sft", gold, "gold")):
        raw = [r[f"{prefix}/{key}"] for r in rows]
        fig.add_scatter(
            x=x.round(4).tolist(),
            y=values.round(4).tolist(),
            mode="lines+markers" if len(rows) < 30 else "lines",
            line={"color": colour(paint), "width": 2.8},
            hovertemplate=f"{text} %{{y:.2f}} at %{{x:.2f}}<extra></extra>",
            **data("series step kl value", [(text, s, k, v) for s, k, v in zip(steps, kl.round(4), raw, strict=True)]),
        )
        if len(rows):
            fig.add_annotation(
                x=float(x[-1]), y=float(values[-1]), text=f"<b>{text} {number(float(values[-1]), '.2f')}</b>", showarrow=False,
                xanchor="left", xshift=8, font={"color": colour(paint)},
            )  # fmt: skip
    span = float(x[-1] - x[0]) if len(x) else 1.0
    if len(x):
        fig.update_xaxes(range=[float(x[0]) - 0.02 * span, float(x[-1]) + 0.02 * span])
    return fig.update_layout(margin_r=100)


def _finding(proxy: np.ndarray, gold: np.ndarray) -> str:
    """What happened, in a sentence with figures."""
    if len(gold) < 2:
        return "Proxy and gold were not measured while PPO ran"
    rose, peak = proxy[-1] - proxy[0], gold.max()
    ends = f"{number(float(proxy[0]), '.2f')} → {number(float(proxy[-1]), '.2f')}"
    fell = peak - gold[-1] > max(0.1, 0.25 * (gold.max() - gold.min()))
    if rose > 0 and fell:
        return f"The proxy rose ({ends}) while gold fell from {number(float(peak), '.2f')} to {number(float(gold[-1]), '.2f')}"
    if rose > 0:
        return f"Proxy ({ends}) and gold ({number(float(gold[0]), '.2f')} → {number(float(gold[-1]), '.2f')}) rose together"
    return f"The proxy did not rise ({ends})"


def against(
    series: Mapping[str, Sequence[Mapping[str, Any]]], *, x: str, y: str | Mapping[str, str] = "gold", title: str = "",
    heads: tuple[str, str] | None = None,
) -> go.Figure:  # fmt: skip
    """Lines of measured points with their 95 % intervals: rows with the keys `x`, `y` and, where known, `y_ci`, a colour a series.

    `y` may differ by series: `against({"reward": rows, "gold": rows}, x="kl", y={"reward": "reward", "gold": "gold"})`.
    `heads` names the axes where the keys do not.
    """
    across, up = heads or (x.replace("_", " "), y.replace("_", " ") if isinstance(y, str) else "score")
    fig = figure(title, subtitle=spans(series) if len(series) > 1 else "", x=across, y=up)
    for run, rows in series.items():
        key, paint = y if isinstance(y, str) else y[run], colour(run)
        known = [(r[x], r[key], r.get(f"{key}_ci")) for r in rows if r.get(key) is not None]
        whiskers = [(v, v) if ci is None else ci for _, v, ci in known]
        up_down = {
            "array": [ci[1] - v for (_, v, _), ci in zip(known, whiskers, strict=True)],
            "arrayminus": [v - ci[0] for (_, v, _), ci in zip(known, whiskers, strict=True)],
        }
        fig.add_scatter(
            x=[k[0] for k in known], y=[k[1] for k in known], mode="lines+markers", marker={"size": 8, "color": paint},
            line={"color": paint, "width": 2.4}, error_y={"type": "data", "color": paint, "thickness": 1.6, **up_down},
            hovertemplate=f"{name(run)} %{{y:.2f}} at %{{x:.3g}}<extra></extra>",
            **data(f"series {x} value low high", [(run, a, v, *ci) for (a, v, _), ci in zip(known, whiskers, strict=True)]),
        )  # fmt: skip
    return fig


def calibration(rows: Iterable[Mapping[str, Any]]) -> go.Figure:
    """When the reward model is 80 % sure, is it right 80 % of the time? Rows of confidence, accuracy, n; Wilson intervals."""
    rows = [r for r in rows if r.get("n")]
    gap = sum(r["n"] * (r["accuracy"] - r["confidence"]) for r in rows) / max(1, sum(r["n"] for r in rows))
    verdict = (
        "about as sure as it should be" if abs(gap) < 0.03 else "surer than it should be" if gap < 0 else "too modest"
    )
    fig = figure(
        f"The reward model is {verdict}",
        subtitle="held-out pairs grouped by confidence, 95 % interval; on the dotted line it is right as often as it claims",
        x="confidence of the reward model",
        y="how often it is right",
    )
    fig.add_scatter(
        x=[0.5, 1], y=[0.5, 1], mode="lines", line={"color": INK, "width": 1, "dash": "dot"}, hoverinfo="skip"
    )
    around = [wilson(r["accuracy"], r["n"]) for r in rows]
    paint = colour("reward")
    fig.add_scatter(
        x=[r["confidence"] for r in rows],
        y=[r["accuracy"] for r in rows],
        error_y={
            "type": "data",
            "array": [h - r["accuracy"] for r, (_, h) in zip(rows, around, strict=True)],
            "arrayminus": [r["accuracy"] - low for r, (low, _) in zip(rows, around, strict=True)],
            "color": paint,
            "thickness": 2,
            "width": 0,
        },
        mode="lines+markers",
        line={"color": paint, "width": 1.5},
        marker={"size": 11, "color": paint},
        hovertext=[f"{r['n']} pairs: sure {r['confidence']:.0%}, right {r['accuracy']:.0%}" for r in rows],
        hoverinfo="text",
        **data("confidence accuracy n", [(r["confidence"], r["accuracy"], r["n"]) for r in rows]),
    )
    return fig.update_xaxes(tickformat=".0%", range=[0.48, 1.02]).update_yaxes(tickformat=".0%")


def histogram(values: Mapping[str, Sequence[float]], *, title: str = "", x: str = "", bins: int = 24) -> go.Figure:
    """How values spread, a colour a series, as shares of each series over common bins."""
    every = np.concatenate([np.asarray(v, dtype=float) for v in values.values()] or [np.zeros(1)])
    edges = np.histogram_bin_edges(every, bins)
    fig = figure(title or "How the values spread", subtitle=spans(values), x=x, y="share of answers")
    for series, v in values.items():
        share = np.histogram(v, edges)[0] / max(1, len(v))
        fig.add_scatter(
            x=np.repeat(edges, 2)[1:-1].round(4).tolist(),
            y=np.repeat(share, 2).round(5).tolist(),
            mode="lines",
            line={"color": colour(series), "width": 2},
            fill="tozeroy",
            fillcolor=_faint(colour(series)),
            name=name(series),
            hovertemplate=f"{name(series)}: %{{y:.1%}} near %{{x:.2f}}<extra></extra>",
            **data("series from to share", list(zip([series] * bins, edges, edges[1:], share, strict=False))),
        )
    return fig.update_yaxes(tickformat=".0%", rangemode="tozero")


def _faint(paint: str) -> str:
    return f"rgba({int(paint[1:3], 16)},{int(paint[3:5], 16)},{int(paint[5:7], 16)},0.14)"
