"""A run is whole or not there: the manifest comes last, names every file, and a damaged run is noticed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from labkit import runs
from labkit.errors import LabError
from labkit.records import Answer, Prompt, Vote, write_jsonl


def make(folder: Path, run_id: str = "sft-abc123", *, finished: str = "2026-01-01T00:00:00+00:00") -> runs.Run:
    """A finished run with weights, metrics and answers."""
    path = runs.start(folder, run_id)
    (path / "model").mkdir()
    (path / "model" / "model.safetensors").write_bytes(b"w" * 1000)
    write_jsonl(path / "metrics.jsonl", [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": 0.25}])
    rows = [
        Answer(prompt=Prompt.of(f"{s}?", split=s), text=a, author=a)
        for s in ("validation", "test")
        for a in ("sft", "dpo")
    ]
    write_jsonl(path / "answers.jsonl", rows)
    return runs.finish(path, {"name": run_id.split("-")[0], "finished": finished, "summary": {"pairs": 3}})


def test_a_killed_run_is_not_finished_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Killed at any point before the manifest: not found, not listed, and the next attempt starts in an empty
    folder.
    """
    path = runs.start(tmp_path / "tiny", "sft-abc123")
    (path / "answers.jsonl").write_text("half a li")
    (path / f"{runs.MANIFEST}.{os.getpid()}.tmp").write_text("{")  # killed while the manifest was being written
    assert runs.find(tmp_path / "tiny", "sft-abc123") is None
    assert list(runs.every(tmp_path)) == []
    again = runs.start(tmp_path / "tiny", "sft-abc123")
    assert again == path and list(again.iterdir()) == []


def test_the_manifest_names_every_file_with_its_size_and_digest(tmp_path: Path) -> None:
    run = make(tmp_path)
    files = run.manifest["files"]
    assert set(files) == {"answers.jsonl", "metrics.jsonl", "model/model.safetensors"}
    assert files["model/model.safetensors"] == {"bytes": 1000, "sha256": hashlib.sha256(b"w" * 1000).hexdigest()}
    assert not list(run.path.glob("*.tmp"))


def test_a_run_is_read_back(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert (run.id, run.name, run.summary) == ("sft-abc123", "sft", {"pairs": 3})
    assert run.model == run.path / "model"
    assert [row["train/loss"] for row in run.metrics()] == [0.5, 0.25]
    assert len(run.answers()) == 4 and {a.author for a in run.answers("test")} == {"sft", "dpo"}
    assert [a.prompt.text for a in run.answers("test", author="dpo")] == ["test?"]
    assert run.votes() == []


def test_votes_come_back_as_they_went_in(tmp_path: Path) -> None:
    vote = Vote(
        id="1", prompt=Prompt.of("Who? 🦡"), answers=("a\n", "b"), ranks=(2, 1), rater="Wren", source="person", time="t", shown=(1, 0)
    )  # fmt: skip
    path = runs.start(tmp_path, "reward-1")
    write_jsonl(path / "votes.jsonl", [vote])
    assert runs.Run(path).votes() == [vote]


@pytest.mark.parametrize("name", ["answers.jsonl", "metrics.jsonl", "model/model.safetensors"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_run_is_noticed(tmp_path: Path, name: str, how: str) -> None:
    run = make(tmp_path)
    file = run.path / name
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    with pytest.raises(
        LabError, match=f"sft-abc123 is damaged: {name} is missing or cut short. Delete .* and run again"
    ):
        runs.find(tmp_path, run.id)


def test_a_manifest_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = make(tmp_path)
    (run.path / runs.MANIFEST).write_text('{"name": "sft", "fi')
    with pytest.raises(LabError, match="no readable run.json: delete its folder"):
        runs.find(tmp_path, run.id)


def test_a_finished_run_is_never_written_over(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(LabError, match="finished already"):
        runs.start(tmp_path, "sft-abc123")


def test_every_lists_all_recipes_runs_oldest_first(tmp_path: Path) -> None:
    make(tmp_path / "tiny", "dpo-1", finished="2026-01-03")
    make(tmp_path / "small", "sft-2", finished="2026-01-01")
    make(tmp_path / "tiny", "sft-3", finished="2026-01-02")
    assert [run.id for run in runs.every(tmp_path)] == ["sft-2", "sft-3", "dpo-1"]


def test_notes_and_pins_stand_beside_the_manifest(tmp_path: Path) -> None:
    run = make(tmp_path)
    before = (run.path / runs.MANIFEST).read_bytes()
    assert runs.marks(run) == {"note": "", "pinned": False}
    runs.note(run, text="the good one 🦡")
    runs.note(run, pinned=True)
    assert runs.marks(run) == {"note": "the good one 🦡", "pinned": True}
    runs.note(run, text="", pinned=False)
    assert runs.marks(run) == {"note": "", "pinned": False}
    assert (run.path / runs.MANIFEST).read_bytes() == before
    assert runs.find(tmp_path, run.id) is not None, "a note is no damage"


def test_clean_takes_the_weights_and_nothing_else(tmp_path: Path) -> None:
    run = make(tmp_path)
    runs.note(run, pinned=True)
    assert runs.clean(run) == 0 and run.model.is_dir(), "a pinned run is left alone"
    runs.note(run, pinned=False)
    assert runs.clean(run) == 1000
    after = runs.find(tmp_path, run.id)
    assert after is not None and after.manifest["cleaned"] and len(after.answers()) == 4
    with pytest.raises(LabError, match="weights of sft-abc123 are gone .* --fresh"):
        _ = after.model
    assert runs.clean(after) == 0


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The power goes before the rename: the old content stands, and no reader ever sees half of the new one."""
    file = tmp_path / "run.json"
    runs.write(file, json.dumps({"n": 1}))

    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        runs.write(file, json.dumps({"n": 2}) * 1000)
    assert json.loads(file.read_text()) == {"n": 1}
