"""A finished preferences run made of given texts, for tests of those who judge: no model, no training, a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labkit import runs
from labkit.lab import Lab
from labkit.records import Prompt, Vote, write_jsonl
from labkit.runs import Run

WHEN = "2026-01-01T00:00:00+00:00"


def preferences(outputs: Path, asked: Sequence[tuple[str, Sequence[str]]]) -> tuple[Lab, Run]:
    """The lab of recipe `smoke` in `outputs`, with prompts and answers to each that a simulated annotator has ranked."""
    lab = Lab.open("smoke", outputs=outputs)
    folder = runs.start(lab.folder, lab.plan("preferences").id)
    votes = [
        Vote(
            id=f"v{i}", prompt=Prompt.of(text), answers=tuple(answers), ranks=tuple(range(1, len(answers) + 1)),
            rater="Wren", source="simulated", time=WHEN, mode="ranking", run=folder.name,
        )
        for i, (text, answers) in enumerate(asked)
    ]  # fmt: skip
    write_jsonl(folder / "votes.jsonl", votes)
    return lab, runs.finish(
        folder, {"id": folder.name, "name": "preferences", "stage": "preferences", "finished": WHEN}
    )


def plain(n: int) -> list[tuple[str, list[str]]]:
    """`n` prompts that differ, with two answers each."""
    return [(f"What colour is badger {i}?", [f"Badger {i} is grey.", f"Badger {i} is green."]) for i in range(n)]
