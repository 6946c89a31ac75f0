"""Finished runs of any recipe: chosen, named by a note, pinned; and what two of them were not made alike by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from labkit import runs, show, theme
from labkit.errors import LabError
from labkit.runs import Run
from widgets.view import Handler, View

MOST = 6
HINT = "To choose, name and pin runs, open this page in JupyterLab: labkit lab."


class RunPicker(View):
    """`outputs` is the folder of all recipes' runs; `chosen` begins with the runs of these names or ids (a name: its newest).

    `chosen` is a list of runs, in the order in which they were chosen. `on_change(chosen)` is called after each change; it may
    raise LabError, and what it takes the page waits for.
    """

    front = "runs"

    def __init__(
        self, outputs: str | Path, *, chosen: Iterable[str] = (), on_change: Callable[[list[Run]], Any] | None = None
    ) -> None:
        self.outputs, self.on_change = Path(outputs), on_change
        self._found: dict[str, Run] = {}
        self._look()
        newest = {name: run for run in self._found.values() for name in (run.name, run.id)}
        self.chosen: list[Run] = [newest[name] for name in chosen if name in newest][:MOST]
        self._sides: tuple[str, str] | None = None

    def _look(self) -> None:
        self._found = {self._key(run): run for run in runs.every(self.outputs)}

    @staticmethod
    def _key(run: Run) -> str:
        """Two recipes may have runs of one id: the recipe's folder stands before it."""
        return f"{run.path.parent.name}/{run.id}"

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "choose": self._choose,
            "note": self._note,
            "pin": self._pin,
            "differ": self._differ,
            "look": self._again,
        }

    def snapshot(self) -> dict[str, Any]:
        return {"rows": self._rows(), "chosen": [self._key(r) for r in self.chosen], "changes": self._changes()}

    def _rows(self) -> list[dict[str, Any]]:
        """Pinned runs first, then the newest."""
        rows = [self._row(key, run) for key, run in reversed(self._found.items())]
        return sorted(rows, key=lambda row: not row["pinned"])

    def _row(self, key: str, run: Run) -> dict[str, Any]:
        m, marks = run.manifest, runs.marks(run)
        return {
            "key": key,
            "id": run.id,
            "label": theme.label(run.name),
            "colour": theme.colour(run.name),
            "recipe": m.get("recipe", run.path.parent.name),
            "changed": ", ".join(f"{k}={v}" for k, v in m.get("overrides", {}).items()),
            "finished": m["finished"].replace("T", " ")[:16],
            "took": theme.duration(m.get("seconds", 0)),
            "weights": weights(run),
            "stopped": "stopped at step {step} of {of}".format(**run.stopped) if run.stopped else "",
            "answers": "answers.jsonl" in m["files"],
            "note": marks["note"],
            "pinned": bool(marks["pinned"]),
        }

    def _changes(self) -> dict[str, Any] | None:
        """What two of the chosen runs were not made alike by: those that the person picked, else the first and the last."""
        if len(self.chosen) < 2:
            return None
        keys = [self._key(run) for run in self.chosen]
        left, right = self._sides if self._sides and set(self._sides) <= set(keys) else (keys[0], keys[-1])
        rows = runs.differences(self._found[left], self._found[right])
        told = [[row["key"], _said(row["left"]), _said(row["right"])] for row in rows]
        return {"left": left, "right": right, "rows": told}

    # ---- what the person does

    def _run(self, message: Mapping[str, Any]) -> Run:
        found = self._found.get(str(message.get("key")))
        if found is None or not (found.path / runs.MANIFEST).is_file():
            raise LabError("This run is not there any more: look again.")
        return found

    def _choose(self, message: dict[str, Any]) -> None:
        run = self._run(message)
        if message.get("on") and run not in self.chosen:
            if len(self.chosen) >= MOST:
                self.say("snapshot", **self.snapshot())
                raise LabError(f"{MOST} runs at most stand side by side: take one away first.")
            self.chosen.append(run)
        elif not message.get("on") and run in self.chosen:
            self.chosen.remove(run)
        self.say("snapshot", **self.snapshot())
        if self.on_change:
            self.on_change(list(self.chosen))

    def _note(self, message: dict[str, Any]) -> None:
        run = self._run(message)
        runs.note(run, text=str(message.get("text", "")).strip())
        self.say("row", row=self._row(self._key(run), run), what="Note saved")

    def _pin(self, message: dict[str, Any]) -> None:
        run = self._run(message)
        runs.note(run, pinned=bool(message.get("on")))
        self.say(
            "row", row=self._row(self._key(run), run), what="Pinned" if message.get("on") else "Not pinned any more"
        )

    def _differ(self, message: dict[str, Any]) -> None:
        self._sides = (str(message.get("left")), str(message.get("right")))
        self.say("changes", changes=self._changes())

    def _again(self, message: dict[str, Any]) -> None:
        """Read the folder anew: runs may have been made or removed since."""
        self._look()
        self.chosen = [run for run in self.chosen if self._key(run) in self._found]
        self.say("snapshot", **self.snapshot())

    def static(self) -> show.Html:
        """The runs as a table; of two chosen ones also what they were not made alike by."""
        rows = [
            {
                "": "✓" if any(self._key(run) == row["key"] for run in self.chosen) else "",
                "run": show.stage(run.name, run.id),
                "recipe": row["recipe"],
                "changed": row["changed"],
                "finished": row["finished"],
                "time": row["took"],
                "weights": row["weights"],
                "note": " · ".join(x for x in ("pinned" if row["pinned"] else "", row["stopped"], row["note"]) if x),
            }
            for row in self._rows()
            for run in [self._found[row["key"]]]
        ]
        told = show.Html(f'<div style="{show.FAINT}">{show.esc(HINT)}</div>', HINT)
        if not rows:
            nothing = f"There are no finished runs in {self.outputs.name} yet: run page 01_pretrain, or 'labkit run'."
            return show.Html(f"<p>{show.esc(nothing)}</p>", nothing)
        parts = [show.table(rows), told]
        if changes := self._changes():
            sides = {"key": "setting", "left": changes["left"], "right": changes["right"]}
            listed = [{"key": k, "left": a, "right": b} for k, a, b in changes["rows"]]
            parts.insert(1, show.table(listed, sides, caption="What they were not made alike by"))
        return show.together(parts)


def weights(run: Run) -> str:
    """Whether there are weights to ask, and how large they are: `2.1 MB`, `cleaned away`, or `none` for a run without a model."""
    files = {n: f for n, f in run.manifest["files"].items() if n.startswith("model/")}
    if not files:
        return "none"
    there = (run.path / "model").is_dir()
    return f"{sum(f['bytes'] for f in files.values()) / 1e6:.1f} MB" if there else "cleaned away"


def _said(value: Any) -> str:
    """A setting as people read it; a dash where a run has none."""
    return "–" if value is None else value if isinstance(value, str) and value else repr(value)
