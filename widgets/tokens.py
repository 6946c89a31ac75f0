"""One answer under the microscope: each token coloured by what a stage changed, with the numbers and the alternatives.

What is looked at comes from labkit's microscope as plain JSON, or from a callable that looks when the person asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labkit import show
from labkit.errors import LabError
from widgets.view import View

LESS, MORE = (230, 97, 1), (43, 123, 203)  # orange and blue: told apart with any colour vision; tokens.js has the same
STRONGEST = 0.72  # of the paint, so that the text on it keeps its contrast in light and dark
VISIBLE = {" ": "·", "\n": "↵", "\t": "→"}
HINT = "← and → go from token to token, digits choose what colours them."
MOST = 5  # tokens in the static table


class TokenView(View):
    """`seen` is what the microscope saw, or a callable `(text, answer, a, b)` that looks, called in a thread.

    With a callable `models` are the names to choose `a` and `b` from; `write(text, model, seed)` lets one of them write the
    answer. `text`, `answer`, `a` and `b` are what is looked at first.
    """

    front = "tokens"

    def __init__(
        self,
        seen: Mapping[str, Any] | Callable[[str, str, str, str], Mapping[str, Any]],
        *,
        write: Callable[[str, str, int], str] | None = None,
        models: Sequence[str] = (),
        text: str = "",
        answer: str = "",
        a: str = "sft",
        b: str = "dpo",
    ) -> None:
        self._look = seen if callable(seen) else None
        self._write = write
        self.seen = None if callable(seen) else dict(seen)
        self.models = list(models)
        self.asked = {"text": text, "answer": answer, "a": a, "b": b}
        self.busy = ""

    def snapshot(self) -> dict[str, Any]:
        return {
            **self._shown(),
            "asked": self.asked,
            "models": [{"name": name, "label": show.stage(name).text} for name in self.models],
            "looks": self._look is not None,
            "writes": self._write is not None,
            "busy": self.busy,
        }

    def _shown(self) -> dict[str, Any]:
        if not self.seen:
            return {"seen": None}
        return {
            "seen": self.seen,
            "layers": layers(self.seen),
            "sums": sums(self.seen),
            "notes": [*self.seen["notes"], HINT],
        }

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {"look": self.look}

    def look(self, content: Mapping[str, Any]) -> threading.Thread | None:
        """Look in the background at what was asked; a model named by `content["by"]` writes the answer first.

        None while it is looking already. Raises LabError where a model is not among those that may be asked.
        """
        with self.lock:
            if not self._look or self.busy:
                return None
            asked = {key: str(content.get(key, "")) for key in self.asked}
            by = str(content["by"]) if self._write and content.get("by") else ""
            seed = str(content.get("seed") or 0)
            if not seed.isdecimal():
                raise LabError(f"A seed is a whole number such as 1, not {seed}.")
            for name in (asked["a"], asked["b"], by):
                if name and name not in self.models:
                    raise LabError(f"{name} is not among the models of this view: choose one from the list.")
            self.asked, self.busy = asked, "writing …" if by else "looking …"
        self.say("busy", text=self.busy)
        thread = threading.Thread(target=self._see, args=(by, int(seed)), daemon=True)
        thread.start()
        return thread

    def _see(self, by: str, seed: int) -> None:
        asked, text = dict(self.asked), ""
        try:
            assert self._look
            if by and self._write:
                asked["answer"] = self._write(asked["text"], by, seed)
            self.seen = dict(self._look(asked["text"], asked["answer"], asked["a"], asked["b"]))
        except LabError as error:
            text = str(error)
        except Exception as error:  # a view must outlive whatever a model does
            text = f"{type(error).__name__}: {error}"
        with self.lock:
            self.asked, self.busy = asked, ""
        if text:
            self.say("error", text=text, asked=asked)
        else:
            self.say("seen", **self._shown(), asked=asked)

    def static(self) -> show.Html:
        """The tokens coloured by the change of their log-probability, and a table of those that changed most."""
        if not self.seen and self._look and self.asked["text"]:
            try:
                self.seen = dict(self._look(*(self.asked[key] for key in ("text", "answer", "a", "b"))))
            except LabError as error:
                return show.Html(f"<p>{show.esc(error)}</p>", str(error))
        if not self.seen:
            return show.Html("<p>Nothing has been looked at yet.</p>", "Nothing has been looked at yet.")
        return show.together([_painted(self.seen), _most_changed(self.seen)])


def layers(seen: Mapping[str, Any]) -> list[dict[str, str]]:
    """What may colour the tokens: key, name, unit (with its blank), and what a value below 0 (orange) and above 0 (blue) means."""
    a, b = seen["a"]["label"], seen["b"]["label"]
    rows = (
        (
            "change",
            f"change of log-probability, {a} → {b}",
            " nats",
            f"less likely under {b}",
            f"more likely under {b}",
        ),
        ("kl", f"KL({b} ‖ {a})", " nats", "", "the two models differ"),
        ("logp_a", f"log-probability under {a}", " nats", f"a surprise to {a}", ""),
        ("logp_b", f"log-probability under {b}", " nats", f"a surprise to {b}", ""),
        ("advantage", "PPO’s advantage", "", "worse than expected", "better than expected"),
        ("value", "PPO’s value", "", "below 0", "above 0"),
        ("reward", "reward if the answer ended here", "", "below 0", "above 0"),
    )
    keys = ("key", "name", "unit", "less", "more")
    return [dict(zip(keys, row, strict=True)) for row in rows if row[0] in seen["tokens"][0]]


def sums(seen: Mapping[str, Any]) -> str:
    """The whole answer in one line."""
    a, b, of = seen["a"]["label"], seen["b"]["label"], seen["totals"]
    parts = [
        f"{of['tokens']} tokens",
        f"log π {a} {_number(of['logp_a'])}, {b} {_number(of['logp_b'])}: {_number(of['change'], '+.2f')} nats",
        f"KL along the answer {_number(of['kl'])} nats",
    ]
    return " · ".join([*parts, *([f"reward {_number(of['reward'])}"] if of["reward"] is not None else [])])


def _painted(seen: Mapping[str, Any]) -> show.Html:
    """The answer with a coloured ground behind each token, and the numbers of each where the pointer rests."""
    a, b = seen["a"]["label"], seen["b"]["label"]
    strongest = max([0.1, *(abs(t["change"]) for t in seen["tokens"])])
    parts = []
    for t in seen["tokens"]:
        paint = ",".join(map(str, MORE if t["change"] > 0 else LESS))
        ground = f"background-color:rgba({paint},{STRONGEST * abs(t['change']) / strongest:.2f})"
        hover = f"{_number(t['change'], '+.2f')} nats: {a} {_number(t['logp_a'])}, {b} {_number(t['logp_b'])}; KL {t['kl']:.3f}"
        text = show.esc(t["text"].replace("\n", "↵\n"))
        parts.append(f'<span style="{ground};border-radius:3px" title="{show.esc(hover)}">{text}</span>')
    key = f"blue: more likely under {b} than under {a}, orange: less; the strongest is {strongest:.2f} nats"
    faint = "font-size:12px;opacity:0.75"
    html = (
        f'<div style="margin:6px 0"><div style="{faint}">{show.esc(seen["prompt"])}</div>'
        f'<div style="white-space:pre-wrap;line-height:1.9;font-size:15px">{"".join(parts)}</div>'
        f'<div style="{faint}">{show.esc(key)}<br>{show.esc(sums(seen))}</div></div>'
    )
    return show.Html(html, f"{seen['prompt']}\n{seen['answer']}\n{sums(seen)}")


def _most_changed(seen: Mapping[str, Any]) -> show.Html:
    a, b = seen["a"]["label"], seen["b"]["label"]
    most = sorted(enumerate(seen["tokens"]), key=lambda it: -abs(it[1]["change"]))[:MOST]
    rows = [
        {
            "token": _visible(t["text"]),
            "at": at + 1,
            "change": t["change"],
            "a": t["logp_a"],
            "b": t["logp_b"],
            "kl": t["kl"],
            "top_a": ", ".join(f"{_visible(text)} {100 * p:.0f} %" for text, p in t["top_a"][:3]),
            "top_b": ", ".join(f"{_visible(text)} {100 * p:.0f} %" for text, p in t["top_b"][:3]),
        }
        for at, t in most
    ]
    heads = {
        "token": "token", "at": "place", "change": "change", "a": f"log π {a}", "b": f"log π {b}", "kl": "KL",
        "top_a": f"likeliest: {a}", "top_b": f"likeliest: {b}",
    }  # fmt: skip
    formats = {"change": "+.2f", "a": ".2f", "b": ".2f", "kl": ".3f"}
    return show.table(rows, heads, formats, caption="The tokens that changed most, in nats")


def _visible(text: str) -> str:
    return "".join(VISIBLE.get(c, c) for c in text) or "∅"


def _number(value: float, spec: str = ".2f") -> str:
    text = f"{value:{spec}}"
    return text.lstrip("+-") if text.strip("+-0.") == "" else text.replace("-", "−")
