"""A run: one folder that a stage made, whole or not there at all.

`recipe.yaml metrics.jsonl answers.jsonl [votes.jsonl] [model/] run.json`. The manifest `run.json` is written last, so its
presence means that the run finished. It names every other file with its size and SHA-256: a damaged run is noticed. A run that
a person stopped is kept beside it as `<id>.stopped-<step>`: it can be looked at, and is never taken for the whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.records import Answer, Vote, read_jsonl

MANIFEST = "run.json"
WEIGHTS = ("model/", "value/")  # what `clean` removes: the policy (or reward model), and PPO's value network


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder. Nothing here needs torch."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What is known of the run: name, stage, settings, parents, seconds, tokens, files, summary."""
        try:
            return json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LabError(
                f"The run {self.path} has no readable {MANIFEST}: delete its folder and run again."
            ) from error

    @property
    def name(self) -> str:
        """Its row in the ladder: the stage, or the name of a control."""
        return self.manifest["name"]

    @property
    def summary(self) -> dict[str, Any]:
        """The stage's closing numbers."""
        return self.manifest["summary"]

    @property
    def stopped(self) -> dict[str, int] | None:
        """`step` and `of` where a person stopped it; None for a whole run."""
        return self.manifest.get("stopped")

    @property
    def model(self) -> Path:
        """The folder of its weights; raises LabError when they were cleaned away."""
        folder = self.path / "model"
        if not folder.is_dir():
            raise LabError(f"The weights of {self.id} are gone (cleaned away?): run its stage again with --fresh.")
        return folder

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl: one a logged step, with `step`, `of` and `seconds`."""
        return list(read_jsonl(self.path / "metrics.jsonl"))

    def answers(self, split: str | None = None, *, author: str | None = None) -> list[Answer]:
        """Its answers to the evaluation prompts."""
        # Other splits' rows are not even parsed: `write_jsonl` spells a row's split so.
        having = f'"split": "{split}"' if split else ""
        rows = (Answer.from_json(r) for r in read_jsonl(self.path / "answers.jsonl", having))
        return [
            a for a in rows if (split is None or a.prompt.split == split) and (author is None or a.author == author)
        ]

    def votes(self) -> list[Vote]:
        """The votes it used, exactly as they were."""
        return [Vote.from_json(r) for r in read_jsonl(self.path / "votes.jsonl")]

    def check(self) -> None:
        """Raise LabError when a file that the manifest names is missing or has another size."""
        cleaned = bool(self.manifest.get("cleaned"))
        for name, info in self.manifest["files"].items():
            if cleaned and name.startswith(WEIGHTS):
                continue
            file = self.path / name
            if not file.is_file() or file.stat().st_size != info["bytes"]:
                raise LabError(
                    f"The run {self.id} is damaged: {name} is missing or cut short. Delete {self.path} and run again."
                )


def find(folder: Path, run_id: str) -> Run | None:
    """The finished run of that id, or None; raises LabError when it is damaged."""
    if not (folder / run_id / MANIFEST).is_file():
        return None
    run = Run(folder / run_id)
    run.check()
    return run


def every(outputs: Path) -> Iterator[Run]:
    """All finished runs below an outputs folder, oldest first."""
    found = [Run(p.parent) for p in outputs.glob(f"*/*/{MANIFEST}")]
    yield from sorted(found, key=lambda r: r.manifest["finished"])


def start(folder: Path, run_id: str) -> Path:
    """An empty folder for a run that is about to be made; what a killed attempt left there is removed."""
    path = folder / run_id
    if (path / MANIFEST).exists():
        raise LabError(f"{run_id} is finished already: it is never written over.")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def finish(path: Path, manifest: dict[str, Any]) -> Run:
    """Describe every file of the folder, then write the manifest, last and at once."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)
    described = {p.relative_to(path).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}
    write(path / MANIFEST, json.dumps({**manifest, "files": described}, indent=1, ensure_ascii=False))
    return Run(path)


def finish_stopped(path: Path, manifest: dict[str, Any], *, step: int, of: int) -> Run:
    """Keep what a run had come to after `step` of `of` steps, under an id of its own, which no plan ever has."""
    aside = path.with_name(f"{path.name}.stopped-{step}")
    if (aside / MANIFEST).exists():  # stopped there before, with the same weights
        shutil.rmtree(path)
        return Run(aside)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    return finish(aside, {**manifest, "id": aside.name, "stopped": {"step": step, "of": of}})


def write(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    temporary = path.with_name(path.name + f".{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    os.replace(temporary, path)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def note(run: Run, *, text: str | None = None, pinned: bool | None = None) -> None:
    """Attach a note or a pin to a run, beside its manifest, which never changes."""
    file = run.path / "note.json"
    now = marks(run)
    if text is not None:
        now["note"] = text
    if pinned is not None:
        now["pinned"] = pinned
    write(file, json.dumps(now, ensure_ascii=False))


def marks(run: Run) -> dict[str, Any]:
    """The note and pin of a run: `{"note": "", "pinned": False}` where there are none."""
    file = run.path / "note.json"
    return {"note": "", "pinned": False, **(json.loads(file.read_text(encoding="utf-8")) if file.exists() else {})}


def clean(run: Run) -> int:
    """Remove a run's weights, keep everything else; returns the bytes freed. A pinned run is left alone."""
    if marks(run)["pinned"] or not (run.path / "model").is_dir():
        return 0
    folders = [run.path / name for name in WEIGHTS]
    freed = sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())
    write(run.path / MANIFEST, json.dumps({**run.manifest, "cleaned": True}, indent=1, ensure_ascii=False))
    for f in folders:
        shutil.rmtree(f, ignore_errors=True)
    return freed


def lineage(run: Run) -> list[Run]:
    """The run and all that it was made from, itself first; what is no longer there is left out."""
    found, waiting = {run.id: run}, [run]
    while waiting:
        one = waiting.pop(0)
        for parent in one.manifest["parents"].values():
            path = one.path.parent / parent
            if parent not in found and (path / MANIFEST).is_file():
                found[parent] = Run(path)
                waiting.append(found[parent])
    return list(found.values())


def differences(left: Run, right: Run) -> list[dict[str, Any]]:
    """What two runs were not made alike by: rows of key (`dpo.beta`), left and right, None where a run has no such key.

    Of a recipe only what the run, or one that it was made from, reads. What both have comes first.
    """
    ours, theirs = _choices(left), _choices(right)
    rows = [
        {"key": key, "left": ours.get(key), "right": theirs.get(key)}
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]
    return sorted(rows, key=lambda row: row["left"] is None or row["right"] is None)


def _choices(run: Run) -> dict[str, Any]:
    """Everything that a run depends on, by a flat key."""
    import yaml

    file, made = run.path / "recipe.yaml", run.manifest
    recipe = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    stages = list(dict.fromkeys(r.manifest["stage"] for r in reversed(lineage(run))))
    read = {name: recipe.get(name) or {} for name in ("model", "data", "answers", *stages)}
    read[made["stage"]] = {**read[made["stage"]], **made["settings"]}  # a control has a setting of its own
    told = {"recipe": made.get("recipe"), "seed": made.get("seed"), **_flat(read)}
    told |= {f"made from {name}": parent for name, parent in made["parents"].items()}
    if made.get("votes") is not None:
        told["votes"] = f"{made['votes']} ({made.get('votes_digest')})"
    told |= {"stopped": "at step {step} of {of}".format(**run.stopped)} if run.stopped else {}
    return told | {f"{made['stage']} version": made.get("version"), "torch": made.get("versions", {}).get("torch")}


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"dpo": {"beta": 0.3}}` → `{"dpo.beta": 0.3}`."""
    out: dict[str, Any] = {}
    for key, value in nested.items():
        out |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return out
