"""HTML and its text twin: the small object that everything prints through, the one place that escapes, and tables.

Styles stand in the elements and use greys that read on light and dark pages, so that also a notebook that JupyterLab does
not trust (which loses its style sheets) looks right.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labkit import theme

FAINT = f"color:{theme.INK};font-size:12px"
BOX = "border:1px solid rgba(128,128,128,0.3);border-radius:8px;padding:8px 12px;margin:6px 0"


@dataclass(frozen=True)
class Html:
    """Something to look at: `html` in a notebook or a template, `text` everywhere else."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        """The HTML, out of MathJax's reach: JupyterLab would set what stands between two dollars of an answer as a formula."""
        return f'<div class="mathjax_ignore tex2jax_ignore">{self.html}</div>' if self.html else ""

    def __html__(self) -> str:  # Jinja2 takes it as safe
        return self.html

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


def attached() -> bool:
    """Whether a page with a person is behind this kernel: JupyterLab says so, papermill does not."""
    return bool(os.environ.get("JPY_SESSION_NAME"))


def esc(value: Any) -> str:
    """The one place where text becomes HTML: everything that a model or a person wrote passes here."""
    return value.html if isinstance(value, Html) else html.escape(str(value))


def badge(text: str, paint: str = "#808080", *, hover: str = "") -> Html:
    """A word in a small coloured frame."""
    style = f"border:1px solid {paint};border-radius:9px;padding:0 7px;font-size:11px;color:{paint};white-space:nowrap"
    return Html(f'<span style="{style}" title="{esc(hover)}">{esc(text)}</span>', text)


def stage(name: str, said: str = "") -> Html:
    """The name of a row of the ladder, or what it is called here, with its colour."""
    said = said or theme.label(name)
    dot = f'<span style="color:{theme.colour(name)}">●</span>'
    return Html(f'<span style="white-space:nowrap">{dot} {esc(said)}</span>', said)


Format = str | Callable[[Any], Any]


def table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str] | Mapping[str, str] | None = None,
    formats: Mapping[str, Format] | None = None,
    caption: str = "",
) -> Html:
    """Rows as a neat table: numbers to the right, a column `x` with a column `x_ci` as `1.62 [1.49, 1.75]`.

    `columns` says which, in which order, and under which heading (a mapping); `formats` gives a format such as `.2f`, or a
    function of the value that returns text or Html.
    """
    rows, formats = list(rows), formats or {}
    if columns is None:
        columns = [k for k in (rows[0] if rows else ()) if not (k.endswith("_ci") and k[:-3] in rows[0])]
    heads = dict(columns) if isinstance(columns, Mapping) else {c: c.replace("_", " ") for c in columns}
    cells = [[_cell(row, key, formats.get(key, "")) for key in heads] for row in rows]
    right = [any(isinstance(r.get(k), int | float) and not isinstance(r.get(k), bool) for r in rows) for k in heads]
    side = ["right;white-space:nowrap" if r else "left" for r in right]
    pad = "padding:4px 8px;vertical-align:top"
    line = "border-bottom:1px solid rgba(128,128,128,0.25)"
    top = "".join(
        f'<th style="{pad};text-align:{s};{line};font-weight:600;white-space:nowrap;color:{theme.INK}">{esc(h)}</th>'
        for h, s in zip(heads.values(), side, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{pad};text-align:{s};{line}">{esc(c)}</td>' for c, s in zip(r, side, strict=True))
        + "</tr>"
        for r in cells
    )
    said = f'<caption style="caption-side:top;text-align:left;padding:2px 10px;{FAINT}">{esc(caption)}</caption>'
    head = f"<thead><tr>{top}</tr></thead>"
    out = (
        '<div class="lab-table" style="overflow-x:auto"><table style="border-collapse:collapse;font-size:13px;margin:4px 0">'
        f"{said if caption else ''}{head}<tbody>{body}</tbody></table></div>"
    )
    return Html(out, _text_table(list(heads.values()), [[str(c) for c in r] for r in cells], right, caption))


def _cell(row: Mapping[str, Any], key: str, how: Format) -> Any:
    value = row.get(key)
    if callable(how):
        return how(value)
    ci = row.get(f"{key}_ci")
    if value is None or ci is None:
        return value if isinstance(value, Html) else theme.number(value, how)
    text = theme.interval(value, ci, how or ".2f")
    middle, _, around = text.partition(" [")
    faint = f'{esc(middle)} <span style="{FAINT};white-space:nowrap">[{esc(around)}</span>'
    return Html(f'<span style="white-space:nowrap">{faint}</span>', text)


def _text_table(heads: list[str], cells: list[list[str]], right: list[bool], caption: str) -> str:
    widths = [max(len(r[i]) for r in [heads, *cells]) for i in range(len(heads))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in [heads, ["─" * w for w in widths], *cells]
    ]
    return "\n".join([caption, *lines] if caption else lines)


OWN = ("gold_minus_sft", "gold_minus_sft_ci", "win_over_sft", "win_over_sft_ci")  # SFT against itself says nothing
BASE = ("win_over_base", "win_over_base_ci")


HEADS = {
    "gold_minus_sft": "{score} − SFT", "win_over_sft": "wins over SFT", "win_over_base": "wins over base", "correct": "correct",
    "on_topic": "on topic", "refuse_harm": "refuses harm", "over_refuse": "over-refuses", "rude": "rude", "kl": "KL to SFT",
    "tokens": "tokens", "distinct_2": "distinct bigrams", "web_nll": "nats a web token", "seconds": "time",
}  # fmt: skip
FORMATS: dict[str, Format] = {
    **dict.fromkeys(("win_over_sft", "win_over_base", "correct", "on_topic", "refuse_harm", "over_refuse", "rude"), ".0%"),
    "stage": stage, "gold": ".2f", "gold_minus_sft": "+.2f", "kl": ".1f", "tokens": ".0f", "distinct_2": ".0%", "web_nll": ".2f",
    "seconds": lambda s: "–" if s is None else theme.duration(s),
}  # fmt: skip
BRIEF = (
    "gold",
    "gold_minus_sft",
    "win_over_sft",
    "correct",
    "refuse_harm",
    "over_refuse",
    "rude",
    "kl",
    "tokens",
    "web_nll",
)


def ladder(rows: Iterable[Mapping[str, Any]], *, score: str = "gold", columns: Sequence[str] = BRIEF) -> Html:
    """The ladder table: a row a model, with what it is worth, what it refuses, how far it moved and what it costs.

    A column that is empty for every model is left out.
    """
    itself = {"sft": OWN, "pretrain": BASE}
    rows = [{**r, **dict.fromkeys(itself.get(r["stage"], ()), None)} for r in rows]
    heads = {"stage": "model"} | {k: HEADS.get(k, score).format(score=score) for k in columns}
    shown = {k: h for k, h in heads.items() if k == "stage" or any(r.get(k) is not None for r in rows)}
    return table([{k: v for k, v in r.items() if k != "kl_ci"} for r in rows], shown, FORMATS)
