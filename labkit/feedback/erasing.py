"""What is left of a rater after the store forgot them: the votes that finished runs keep.

A run keeps the votes that it was made with, so that it can be understood later. They can be taken out of it; the model that
they trained, and the pictures that were drawn of them, stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

from labkit import runs
from labkit.records import read_jsonl
from labkit.runs import Run

VOTES = "votes.jsonl"


def copies(outputs: Path, rater: str) -> list[tuple[Run, int]]:
    """The finished runs that keep votes of this rater, oldest first, and how many."""
    counted = ((run, sum(v.get("rater") == rater for v in read_jsonl(run.path / VOTES))) for run in runs.every(outputs))
    return [(run, n) for run, n in counted if n]


def forget(run: Run, rater: str) -> int:
    """Take a rater's votes out of a run's copy and note it in the manifest; returns how many there were."""
    kept: list[str] = []
    gone = 0
    with open(run.path / VOTES, encoding="utf-8") as f:
        for line in f:
            mine = json.loads(line).get("rater") == rater
            gone += mine
            kept += [] if mine else [line]
    path = run.path / VOTES
    runs.write(path, "".join(kept))
    files = {**run.manifest["files"], VOTES: {"bytes": path.stat().st_size, "sha256": runs.sha256(path)}}
    now = {**run.manifest, "files": files, "votes_erased": run.manifest.get("votes_erased", 0) + gone}
    runs.write(run.path / runs.MANIFEST, json.dumps(now, indent=1, ensure_ascii=False))
    vars(run).pop("manifest", None)  # it was read before
    return gone
