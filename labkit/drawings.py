"""Small pictures made by hand as SVG text: curves while a run is going, and the lineage of runs. No plotly, no waiting.

All text is escaped; all colours are mid-tones that read on a light and on a dark page.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from labkit.theme import FONT, INK, SPARE, colour, duration, number, step

POINTS = 90  # of a live curve: more cannot be seen at its width


def live_svg(points: Mapping[str, Sequence[tuple[float, float]]], *, width: int = 520, height: int = 160) -> str:
    """The running curves, up to four side by side, each on a scale of its own: name, last value, range, last step."""
    shown = [(name, list(p)) for name, p in points.items() if p][:4]
    each = width / max(1, len(shown))
    panels = "".join(_panel(name, p, i * each, each, height, SPARE[i]) for i, (name, p) in enumerate(shown))
    if not shown:
        panels = f'<text x="{width / 2:.0f}" y="{height / 2:.0f}" fill="{INK}" text-anchor="middle">waiting for the first step…</text>'
    return _svg(width, height, panels, "curves of the run so far")


def _panel(name: str, points: list[tuple[float, float]], left: float, width: float, height: float, paint: str) -> str:
    """One curve in its frame; the lowest and highest value stand at the left, the last one beside the name."""
    stride = max(1, -(-len(points) // POINTS))
    kept = points[::stride] + ([points[-1]] if (len(points) - 1) % stride else [])
    xs, ys = [x for x, _ in kept], [y for _, y in kept]
    low, high = min(y for _, y in points), max(y for _, y in points)
    x0, y0, w, h = left + 38, 30.0, width - 48, height - 50
    across, up = (xs[-1] - xs[0]) or 1, (high - low) or 1
    at = [(x0 + w * (x - xs[0]) / across, y0 + h * (high - y) / up) for x, y in zip(xs, ys, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    text = f'<text fill="{INK}" font-size="10"'
    return (
        f'<text x="{x0:.0f}" y="17" fill="{INK}" font-size="12">{escape(name[:28])}'
        f' <tspan fill="{paint}" font-weight="600">{number(points[-1][1], ".3g")}</tspan></text>'
        f'<path d="M{x0:.0f} {y0:.0f}h{w:.0f}M{x0:.0f} {y0 + h:.0f}h{w:.0f}" stroke="#808080" stroke-opacity=".3"/>'
        f'{text} x="{x0 - 5:.0f}" y="{y0 + 4:.0f}" text-anchor="end">{number(high, ".3g")}</text>'
        f'{text} x="{x0 - 5:.0f}" y="{y0 + h + 4:.0f}" text-anchor="end">{number(low, ".3g")}</text>'
        f'{text} x="{x0 + w:.0f}" y="{height - 5:.0f}" text-anchor="end">step {number(xs[-1], ".0f")}</text>'
        f'<polyline points="{line}" fill="none" stroke="{paint}" stroke-width="1.8" stroke-linejoin="round"/>'
        f'<circle cx="{at[-1][0]:.1f}" cy="{at[-1][1]:.1f}" r="3" fill="{paint}"/>'
    )


def graph(boxes: Sequence[Mapping[str, Any]], edges: Iterable[tuple[str, str]], *, title: str) -> str:
    """A drawing of boxes {name, text, below, paint, hollow} in columns, each to the right of all that it comes from.

    An arrow that only shortens a longer way is left out.
    """
    names = [b["name"] for b in boxes]
    into: dict[str, list[str]] = {n: [] for n in names}
    for a, b in edges:
        if a in into and b in into:
            into[b].append(a)
    depth: dict[str, int] = {}
    for name in names:  # parents stand before their children
        depth[name] = 1 + max((depth.get(p, 0) for p in into[name]), default=-1)
    columns = [[n for n in names if depth[n] == d] for d in range(max(depth.values(), default=-1) + 1)]
    rows = max(map(len, columns), default=1)
    w, h, dx, dy = 122, 42, 164, 56
    place = {
        n: (4 + d * dx, 6 + ((rows - len(c)) / 2 + i) * dy) for d, c in enumerate(columns) for i, n in enumerate(c)
    }
    near = [(p, n) for n in names for p in into[n] if depth[n] - depth[p] == 1]
    parts = [_arrow(place[p], place[n], w, h) for p, n in near]
    parts += [_box(b, *place[b["name"]], w, h) for b in boxes]
    return _svg(max(1, len(columns)) * dx - dx + w + 8, rows * dy, "".join(parts), title)


def _arrow(start: tuple[float, float], end: tuple[float, float], w: float, h: float) -> str:
    x1, y1, x2, y2 = start[0] + w, start[1] + h / 2, end[0] - 5, end[1] + h / 2
    bend = (x2 - x1) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.1f}C{x1 + bend:.0f} {y1:.1f} {x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}" fill="none"'
        f' stroke="#8a8a8a" stroke-width="1.4"/><path d="M{x2 - 1:.0f} {y2 - 3.5:.1f}l6 3.5l-6 3.5z" fill="#8a8a8a"/>'
    )


def _box(box: Mapping[str, Any], x: float, y: float, w: float, h: float) -> str:
    paint = box.get("paint", "#808080")
    fill = "none" if box.get("hollow") else paint
    dash = ' stroke-dasharray="4 3"' if box.get("hollow") else ""
    middle = f'x="{x + w / 2:.0f}" text-anchor="middle" fill="{INK}"'
    below = (
        f'<text {middle} y="{y + 33:.1f}" font-size="10.5">{escape(box["below"])}</text>' if box.get("below") else ""
    )
    return (
        f'<rect x="{x:.0f}" y="{y:.1f}" width="{w}" height="{h}" rx="7" fill="{fill}" fill-opacity=".16" stroke="{paint}"'
        f' stroke-width="1.3"{dash}/>'
        f'<text {middle} y="{y + (18 if below else 26):.1f}" font-size="13" font-weight="600">{escape(box["text"])}</text>{below}'
    )


def lineage(runs: Mapping[str, Any]) -> str:
    """Which run was made from which: a box a run with its seconds, an arrow from each parent. `compare` is left out."""
    drawn = {n: r for n, r in runs.items() if r.manifest["stage"] not in ("compare", "cake")}
    boxes = [
        {"name": n, "text": step(n), "below": duration(r.manifest["seconds"]), "paint": colour(n)}
        for n, r in drawn.items()
    ]
    edges = [(p, n) for n, r in drawn.items() for p, run_id in r.manifest["parents"].items() if p in drawn]
    order = {n: i for i, n in enumerate(drawn)}
    return graph(
        sorted(boxes, key=lambda b: _rank(b["name"], edges, order)), edges, title="which run was made from which"
    )


def _rank(name: str, edges: list[tuple[str, str]], order: Mapping[str, int]) -> tuple[int, int]:
    """Sorts parents before children: by the length of the longest way from a root, then in the given order."""
    ways = [_rank(p, edges, order)[0] + 1 for p, n in edges if n == name]
    return max(ways, default=0), order[name]


def image(svg: str, *, alt: str = "") -> str:
    """The drawing as an `<img>`, which JupyterLab also shows in a notebook that it does not trust."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{escape(alt)}" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'


def _svg(width: float, height: float, body: str, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(title)}" font-family="{escape(FONT)}" font-size="12">'
        f"{body}</svg>"
    )
