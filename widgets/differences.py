"""What differs between two answers, word by word, for people: as segments for a front end, or as marked HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from labkit import show

SAME, NEW, GONE = "same", "new", "gone"
WORD = re.compile(r"\s*(?:\w+(?:['’]\w+)*|[^\w\s])\s*|\s+")
MARK = "text-decoration:underline;text-decoration-thickness:2px;background:rgba(218,165,32,0.28)"
STRUCK = "text-decoration:line-through;opacity:.7"

Segments = list[list[str]]


def segments(reference: str, text: str) -> Segments:
    """`text` as [op, words] in order: `same` as in the reference, `new`, or `gone` (only the reference has these words).

    Without the `gone` ones the words are `text`, letter for letter; blanks alone are no difference.
    """
    was, now = WORD.findall(reference), WORD.findall(text)
    keys = [[w.strip() for w in words] for words in (was, now)]
    found: Segments = []
    for op, i1, i2, j1, j2 in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if op == "equal":
            found.append([SAME, "".join(now[j1:j2])])
            continue
        found += [[GONE, "".join(was[i1:i2])]] if i2 > i1 else []
        found += [[NEW, "".join(now[j1:j2])]] if j2 > j1 else []
    return found


def marked(parts: Iterable[Iterable[str]], *, gone: bool = False) -> show.Html:
    """The same in HTML and in text: new words underlined on yellow, or `{+words+}`; with `gone` those that were dropped, too."""
    html, text = "", ""
    for op, words in parts:
        inner, before, after = words.strip(), words[: len(words) - len(words.lstrip())], words[len(words.rstrip()) :]
        if op == GONE and not (gone and inner):
            continue
        tag, style, signs = {NEW: ("ins", MARK, "{++}"), GONE: ("del", STRUCK, "[--]")}.get(op, ("", "", ""))
        if not (tag and inner):
            html, text = html + show.esc(words), text + words
            continue
        html += f'{before}<{tag} style="{style}">{show.esc(inner)}</{tag}>{after}'
        text += f"{before}{signs[:2]}{inner}{signs[2:]}{after}"
    return show.Html(html, text)
