"""What a page prints: records, tokens, settings, source, the map; each with HTML for people and text for terminals.

Floor 1: nothing here needs torch. Everything that a model or a person wrote is escaped by `esc`.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from labkit import drawings, runs, theme
from labkit.errors import LabError
from labkit.markup import BOX, FAINT, Html, attached, badge, esc, ladder, stage, table
from labkit.records import Answer, Pair, Prompt, Vote

if TYPE_CHECKING:
    from labkit.lab import Lab
    from labkit.recipe import Recipe
    from labkit.runs import Run

__all__ = [
    "Html", "attached", "badge", "card", "changed", "esc", "examples", "finished", "ladder", "map", "progress", "record", "settings",
    "side_by_side", "source", "stage", "table", "together", "tokens",
]  # fmt: skip


def settings(recipe: Recipe, section: str) -> Html:
    """A section of a recipe: each key, its value, where the value comes from, and what it means."""
    paints = {"default": "#808080", "override": theme.WARN}
    code = lambda t: Html(f"<code>{esc(t)}</code>", str(t))  # noqa: E731
    rows = [
        {
            **row,
            "key": code(row["key"]),
            "value": code("–" if row["value"] in ("", None) else row["value"]),
            "origin": badge(row["origin"], paints.get(row["origin"], theme.colour("sft"))),
        }
        for row in recipe.rows(section)
    ]
    return table(rows, ["key", "value", "origin", "meaning"])


def changed(before: str, now: str, differs: Iterable[str] = ()) -> Html:
    """A notice for a page whose last run is not what the recipe asks for now; nothing when both ids are the same.

    `differs` says what is not as it was, a few words each: `dpo.beta 0.3 → 0.1`.
    """
    if before == now:
        return Html("", "")
    why = f" ({', '.join(differs)})" if differs else ""
    said = (
        f"The recipe changed since {before} was made{why}: running this page makes {now}, and {before} stays as it is."
    )
    return Html(f'<div style="{BOX};border-left:4px solid {theme.WARN}">⚠ {esc(said)}</div>', f"⚠ {said}")


def finished(run: Run) -> Html:
    """One line for a run that is there, made now or long ago: id, time, memory, when."""
    m = run.manifest
    facts = [
        theme.duration(m["seconds"]),
        f"{m['peak_mb']:,} MB" if m.get("peak_mb") else "",
        m["finished"].replace("T", " ")[:16] + " UTC",
    ]
    said = " · ".join(f for f in facts if f)
    html = f'{stage(run.name, theme.step(run.name)).html} <code>{esc(run.id)}</code> <span style="{FAINT}">{esc(said)}</span>'
    return Html(html, f"{run.id} · {said}")


def examples(rows: Iterable[Mapping[str, Any]], *, n: int | None = None) -> Html:
    """Prompts with everybody's answers, as `Comparison.best_examples`, `extremes` and `hacked` give them; `n` answers each."""
    shown = [
        side_by_side(
            r["prompt"], {a: list(given)[:n] for a, given in r["answers"].items()}, why=r["why"].replace("_", " ")
        )
        for r in rows
    ]
    return together(shown) if shown else Html(f'<i style="{FAINT}">There are none.</i>', "There are none.")


def together(parts: Iterable[Html]) -> Html:
    """Several things, one below the other."""
    parts = list(parts)
    return Html("".join(p.html for p in parts), "\n\n".join(p.text for p in parts))


def progress(step: int, of: int, seconds: float, metrics: Mapping[str, float] | None = None, *, name: str = "") -> str:
    """One line of a run on its way: `dpo ▰▰▰▱▱ 120/260 · loss 0.61 · 14 s left`."""
    of = max(of, 1)
    full = min(10, round(10 * step / of))
    shown = [f"{k.split('/')[-1].replace('_', ' ')} {v:.3g}" for k, v in (metrics or {}).items()][:3]
    left = seconds / step * (of - step) if 0 < step < of else None
    end = (
        [f"{theme.duration(left)} left"]
        if left is not None
        else [f"{theme.duration(seconds)} in all"]
        if step >= of
        else []
    )
    return " · ".join([f"{name} {'▰' * full}{'▱' * (10 - full)} {step}/{of}".strip(), *shown, *end])


def source(function: Any) -> Html:
    """The source of a function or class as it runs, coloured; what is shown is what is called."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    from pygments.style import Style
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    class Middle(Style):  # mid-tones: they read on white and on black
        background_color = "transparent"
        styles = {
            Comment: f"italic {theme.INK}",
            String.Doc: f"italic {theme.INK}",
            String: "#2f9e6a",
            Keyword: "bold #b0609a",
            Name.Function: "bold #3b8fd4",
            Name.Class: "bold #3b8fd4",
            Name.Builtin: "#a8841a",
            Name.Decorator: "#a8841a",
            Number: "#d0652d",
            Operator.Word: "bold #b0609a",
        }

    text = textwrap.dedent(inspect.getsource(inspect.unwrap(function))).strip("\n")
    face = theme.MONO.replace("'", "")
    pre = f"margin:0;line-height:1.45;font-size:12.5px;font-family:{face};overflow-x:auto;background:transparent"
    body = highlight(text, PythonLexer(), HtmlFormatter(noclasses=True, style=Middle, nobackground=True, prestyles=pre))
    where = f"{function.__module__}.{function.__qualname__}" if hasattr(function, "__qualname__") else ""
    return Html(f'<div style="{BOX}"><div style="{FAINT};margin-bottom:4px">{esc(where)}</div>{body}</div>', text)


def _turns(prompt: Prompt) -> Html:
    """The conversation, a line a turn; who speaks is said where there is more than one."""
    lines = [(f"{m['role']}: " if len(prompt.messages) > 1 else "", m["content"]) for m in prompt.messages]
    html = "".join(
        f'<div style="margin:2px 0;white-space:pre-wrap"><span style="{FAINT}">{esc(role)}</span>{esc(text)}</div>'
        for role, text in lines
    )
    return Html(html, "\n".join(role + text for role, text in lines))


def _answer(answer: str | Answer, paint: str = "#808080", tag: str = "") -> Html:
    """One answer behind a coloured bar, with its scores."""
    text = answer if isinstance(answer, str) else answer.text
    scores = {} if isinstance(answer, str) else answer.scores
    known = " · ".join(f"{k} {theme.number(v, '.2f')}" for k, v in scores.items())
    side = " ".join(x for x in (tag, known) if x)
    shown = esc(text) if text.strip() else f'<i style="{FAINT}">(an empty answer)</i>'
    style = f"border-left:3px solid {paint};padding:1px 0 1px 9px;margin:4px 0;white-space:pre-wrap"
    after = f' <span style="{FAINT};white-space:nowrap">{esc(side)}</span>' if side else ""
    return Html(f'<div style="{style}">{shown}{after}</div>', f"  | {text}" + (f"  ({side})" if side else ""))


def record(item: Prompt | Answer | Pair | Vote) -> Html:
    """One record as a person would read it: the conversation, and what is known of each answer."""
    prompt = item if isinstance(item, Prompt) else item.prompt
    parts: list[Html] = [_turns(prompt)]
    facts = [type(item).__name__.lower(), prompt.kind, prompt.split]
    if isinstance(item, Answer):
        grades = {k: v for k, v in item.grades.items() if v is not None}
        facts += [f"by {theme.label(item.author)}", f"{item.tokens} tokens"] + [f"{k} {v:g}" for k, v in grades.items()]
        parts.append(_answer(item, theme.colour(item.author)))
    elif isinstance(item, Pair):
        parts += [_answer(item.chosen, theme.GOOD, "chosen"), _answer(item.rejected, theme.BAD, "rejected")]
    elif isinstance(item, Vote):
        facts += [f"{item.mode} by {item.rater} ({item.source})", f"{item.seconds:.1f} s"] + (
            [item.flag] if item.flag else []
        )
        ranks = item.ranks or (0,) * len(item.answers)  # a skip has none
        for rank, text in sorted(zip(ranks, item.answers, strict=True), key=lambda pair: pair[0]):
            paint = theme.GOOD if rank and rank == min(ranks) else "#808080"
            parts.append(_answer(text, paint, f"rank {rank}" if rank else ""))
    line = " · ".join(facts)
    html = f'<div style="{BOX}"><div style="{FAINT};margin-bottom:4px">{esc(line)}</div>{"".join(p.html for p in parts)}</div>'
    return Html(html, "\n".join([line, *(p.text for p in parts)]))


def tokens(pieces: Sequence[str], mask: Sequence[bool], title: str = "") -> Html:
    """Tokens as chips, those that count in the loss coloured; spaces show as ·, line ends as ↵."""
    counts = sum(bool(m) for m in mask)  # `map` is this module's own
    said = f"{title + ': ' if title else ''}{counts} of {len(pieces)} tokens count in the loss (coloured)"
    chips, marked = [], []
    for piece, trained in zip(pieces, mask, strict=True):
        seen = piece.replace("Ġ", "·").replace("Ċ", "↵").replace(" ", "·").replace("\n", "↵").replace("\t", "→") or "∅"
        paint = f"{theme.colour('sft')};background-color:rgba(59,143,212,0.22)" if trained else "rgba(128,128,128,0.35)"
        ink = "" if trained else f";color:{theme.INK}"
        chips.append(
            f'<span style="display:inline-block;border:1px solid {paint};border-radius:4px;padding:0 3px;margin:1px;'
            f'font-family:{theme.MONO.replace(chr(39), "")};font-size:12px{ink}">{esc(seen)}</span>'
            + ("<br>" if "\n" in piece else "")
        )
        marked.append(f"[{seen}]" if trained else seen)
    html = f'<div style="{BOX}"><div style="{FAINT};margin-bottom:4px">{esc(said)}</div>{"".join(chips)}</div>'
    return Html(html, f"{said}\n{' '.join(marked)}")


def side_by_side(prompt: Prompt | str, answers: Mapping[str, Iterable[str | Answer]], *, why: str = "") -> Html:
    """Everybody's answers to one prompt, a row an author."""
    asked = prompt if isinstance(prompt, Prompt) else Prompt.of(prompt)
    rows, texts = [], [_turns(asked).text]
    cell = "padding:3px 12px 3px 0;vertical-align:top;text-align:left"
    for author, given in answers.items():
        shown = [_answer(a, theme.colour(author)) for a in given]
        rows.append(
            f'<tr><td style="{cell};padding-top:5px;white-space:nowrap">{stage(author).html}</td>'
            f'<td style="{cell}">{"".join(s.html for s in shown)}</td></tr>'
        )
        texts += [theme.label(author), *(s.text for s in shown)]
    top = f'<div style="{FAINT}">{esc(why)}</div>' if why else ""
    body = f'<table style="border-collapse:collapse;font-size:13px;margin-top:4px">{"".join(rows)}</table>'
    return Html(f'<div style="{BOX}">{top}<b>{_turns(asked).html}</b>{body}</div>', "\n".join(texts))


def card(run: Run) -> Html:
    """What there is to know of one run: id, time, parents, size, versions, note."""
    m, marks = run.manifest, runs.marks(run)
    size = sum(f["bytes"] for f in m["files"].values())
    facts = {
        "made by": f"{m['stage']}: {m.get('about', '')}",
        "from": ", ".join(m["parents"].values()) or "nothing: random weights or a pretrained model",
        "recipe": f"{m['recipe']} ({m['recipe_digest']}), seed {m['seed']}",
        "overrides": ", ".join(f"{k}={v}" for k, v in m.get("overrides", {}).items()),
        "time": theme.duration(m["seconds"]) + _phases(m.get("phases", {})),
        "memory": f"{m['peak_mb']:,} MB at most" if m.get("peak_mb") else "",
        "files": f"{len(m['files'])} files, {size / 1e6:.1f} MB"
        + (", weights cleaned away" if m.get("cleaned") else ""),
        "versions": ", ".join(f"{k} {v}" for k, v in m.get("versions", {}).items()),
        "note": marks["note"] + (" 📌" if marks["pinned"] else ""),
    }
    rows = [{"key": k, "value": v} for k, v in facts.items() if v.strip()]
    head = {"key": run.id, "value": f"finished {m['finished'].replace('T', ' ')[:16]} UTC"}
    return table(rows, head)


def _phases(phases: Mapping[str, float]) -> str:
    return f" ({', '.join(f'{k} {theme.duration(v)}' for k, v in phases.items())})" if phases else ""


def map(lab: Lab) -> Html:  # noqa: A001
    """The map of the lab: every run of the graph, whether it is finished, out of date or still to be made, and its page."""
    from labkit import stages

    marks = {"finished": ("●", theme.GOOD), "changed since": ("◐", theme.WARN), "not yet run": ("○", "#808080")}
    boxes, rows = [], []
    for name, node in stages.GRAPH.items():
        if not stages.asked_for(name, lab.recipe):
            continue
        status, run, wanted = _status(lab, name)
        sign, paint = marks[status]
        href = f'<a href="{esc(node.page)}.ipynb">{esc(node.page)}</a>'
        rows.append(
            {
                "": Html(f'<span style="color:{paint}" title="{status}">{sign}</span>', sign),
                "run": stage(name, theme.step(name)),
                "what it is": node.about,
                "status": status,
                "id": wanted if status == "finished" else "",
                "time": theme.duration(run.manifest["seconds"]) if run else "",
                "page": Html(href, node.page),
            }
        )
        boxes.append(
            {
                "name": name,
                "text": theme.step(name),
                "below": rows[-1]["time"] or status,
                "paint": paint,
                "hollow": not run,
            }
        )
    edges = [(p, n) for n, node in stages.GRAPH.items() for p in node.parents if n not in ("compare", "cake")]
    drawn = drawings.graph(
        [b for b in boxes if b["name"] not in ("compare", "cake")], edges, title="the map of the lab"
    )
    listed = table(rows)
    return Html(
        f'<div style="overflow-x:auto">{drawings.image(drawn, alt="the map of the lab")}</div>{listed.html}',
        listed.text,
    )


def _status(lab: Lab, name: str) -> tuple[str, Run | None, str]:
    """Finished, changed since (a run of that name is there, made from other choices) or not yet run."""
    try:
        wanted = lab.plan(name).id
        run = runs.find(lab.folder, wanted)
    except LabError:  # a damaged run counts as not made; opening the map must not fail
        return "not yet run", None, ""
    if run:
        return "finished", run, wanted
    older = any(lab.folder.glob(f"{name}-??????/{runs.MANIFEST}"))
    return ("changed since" if older else "not yet run"), None, wanted
