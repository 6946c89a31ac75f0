"""Choosing, naming and pinning runs, and what two of them were not made alike by; without a browser."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
import synthetic
import yaml

from labkit import runs
from labkit.errors import LabError
from labkit.runs import Run
from widgets.runs import RunPicker, weights

EVIL = "<img src=x onerror=alert(1)>"


def made(folder: Path, run_id: str, stage: str, minute: int, **more: Any) -> Run:
    """A finished run with weights; `recipe` are its settings by section, the rest goes into its manifest."""
    path = runs.start(folder, run_id)
    (path / "recipe.yaml").write_text(yaml.safe_dump({"seed": 0, **more.pop("recipe", {})}))
    (path / "model").mkdir()
    (path / "model" / "model.safetensors").write_bytes(b"w" * 500_000)
    facts = {"name": run_id.rsplit("-", 1)[0], "stage": stage, "recipe": folder.name, "seed": 0, "settings": {}, "parents": {},
             "summary": {}, "seconds": 61, "finished": f"2026-01-01T00:{minute:02}:00", "version": 1}  # fmt: skip
    return runs.finish(path, {**facts, **more})


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """An SFT run, two DPO runs from it, a control, and an SFT run of another recipe."""
    tiny = {"model": {"hidden": 96}, "sft": {"epochs": 3}, "dpo": {"beta": 0.3, "epochs": 1}, "ppo": {"kl": 0.1}}
    other = {**tiny, "dpo": {"beta": 0.1, "epochs": 1}, "ppo": {"kl": 0.9}}
    sft = made(tmp_path / "tiny", "sft-aaaaaa", "sft", 1, recipe=tiny, settings=tiny["sft"])
    parents = {"sft": sft.id}
    for run_id, minute, recipe, settings in (
        ("dpo-bbbbbb", 2, tiny, tiny["dpo"]),
        ("dpo-cccccc", 3, other, other["dpo"]),
        ("dpo_shuffled-dddddd", 4, tiny, {**tiny["dpo"], "shuffle_labels": True}),
    ):
        more = {"votes": 80, "votes_digest": "abc", "overrides": {"dpo.beta": 0.1} if recipe is other else {}}
        made(tmp_path / "tiny", run_id, "dpo", minute, recipe=recipe, settings=settings, parents=parents, **more)
    made(tmp_path / "small", "sft-aaaaaa", "sft", 0, recipe={**tiny, "model": {"hidden": 8}}, settings=tiny["sft"])
    return tmp_path


def run(outputs: Path, key: str) -> Run:
    return Run(outputs / key)


def listening(picker: RunPicker) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    picker.say = lambda kind, **content: heard.append(json.loads(json.dumps({"kind": kind, **content})))  # type: ignore
    return heard


# ---- differences -----------------------------------------------------------------------------------


def test_differences_by_hand(outputs: Path) -> None:
    """β differs; PPO's settings differ, too, but no DPO run reads them."""
    pair = run(outputs, "tiny/dpo-bbbbbb"), run(outputs, "tiny/dpo-cccccc")
    assert runs.differences(*pair) == [{"key": "dpo.beta", "left": 0.3, "right": 0.1}]
    assert runs.differences(pair[0], pair[0]) == []
    control = runs.differences(pair[0], run(outputs, "tiny/dpo_shuffled-dddddd"))
    assert control == [{"key": "dpo.shuffle_labels", "left": None, "right": True}]


def test_differences_of_unlike_runs_put_what_both_have_first(outputs: Path) -> None:
    rows = runs.differences(run(outputs, "small/sft-aaaaaa"), run(outputs, "tiny/dpo-bbbbbb"))
    assert [(r["key"], r["left"], r["right"]) for r in rows[:2]] == [
        ("recipe", "small", "tiny"),
        ("model.hidden", 8, 96),
    ]
    told = {r["key"]: (r["left"], r["right"]) for r in rows[2:]}
    assert told["dpo.beta"] == (None, 0.3) and told["made from sft"] == (None, "sft-aaaaaa")
    assert told["votes"] == (None, "80 (abc)") and "sft.epochs" not in told and "ppo.kl" not in told


def test_lineage_leaves_out_what_is_gone(outputs: Path) -> None:
    dpo = run(outputs, "tiny/dpo-bbbbbb")
    assert [r.id for r in runs.lineage(dpo)] == ["dpo-bbbbbb", "sft-aaaaaa"]
    (outputs / "tiny" / "sft-aaaaaa" / "run.json").unlink()
    assert [r.id for r in runs.lineage(dpo)] == ["dpo-bbbbbb"]


# ---- the picker ------------------------------------------------------------------------------------


def test_runs_of_all_recipes_newest_first_with_the_state_of_their_weights(outputs: Path) -> None:
    runs.clean(run(outputs, "tiny/dpo-bbbbbb"))
    rows = RunPicker(outputs).snapshot()["rows"]
    assert [r["key"] for r in rows] == [
        "tiny/dpo_shuffled-dddddd", "tiny/dpo-cccccc", "tiny/dpo-bbbbbb", "tiny/sft-aaaaaa", "small/sft-aaaaaa",
    ]  # fmt: skip
    assert [r["weights"] for r in rows] == ["0.5 MB", "0.5 MB", "cleaned away", "0.5 MB", "0.5 MB"]
    assert (rows[1]["changed"], rows[1]["took"], rows[1]["label"]) == ("dpo.beta=0.1", "1 min 01 s", "DPO")


def test_choosing_keeps_the_order_and_tells_who_listens(outputs: Path) -> None:
    told: list[list[str]] = []
    picker = RunPicker(outputs, chosen=["sft"], on_change=lambda chosen: told.append([r.id for r in chosen]))
    heard = listening(picker)
    assert [r.path for r in picker.chosen] == [outputs / "tiny" / "sft-aaaaaa"], "the newest of that name"
    picker.hear({"kind": "choose", "key": "tiny/dpo-cccccc", "on": True})
    picker.hear({"kind": "choose", "key": "tiny/dpo-cccccc", "on": True})
    picker.hear({"kind": "choose", "key": "tiny/dpo-bbbbbb", "on": True})
    picker.hear({"kind": "choose", "key": "tiny/sft-aaaaaa", "on": False})
    assert told == [
        ["sft-aaaaaa", "dpo-cccccc"], ["sft-aaaaaa", "dpo-cccccc"], ["sft-aaaaaa", "dpo-cccccc", "dpo-bbbbbb"],
        ["dpo-cccccc", "dpo-bbbbbb"],
    ]  # fmt: skip
    assert heard[-1]["changes"] == {
        "left": "tiny/dpo-cccccc",
        "right": "tiny/dpo-bbbbbb",
        "rows": [["dpo.beta", "0.1", "0.3"]],
    }
    picker.hear({"kind": "differ", "left": "tiny/dpo-bbbbbb", "right": "tiny/dpo-cccccc"})
    assert heard[-1]["changes"]["rows"] == [["dpo.beta", "0.3", "0.1"]]
    picker.hear({"kind": "choose", "key": "nowhere/x", "on": True})
    assert heard[-1]["kind"] == "error" and "not there any more" in heard[-1]["text"]


def test_a_listener_that_cannot_follow_says_why(outputs: Path) -> None:
    def refuse(chosen: list[Run]) -> None:
        raise LabError("These runs share no prompt.")

    picker = RunPicker(outputs, on_change=refuse)
    heard = listening(picker)
    picker.hear({"kind": "choose", "key": "tiny/sft-aaaaaa", "on": True})
    assert [m["kind"] for m in heard] == ["snapshot", "error"] and heard[1]["text"] == "These runs share no prompt."
    assert len(picker.chosen) == 1


def test_six_at_most(tmp_path: Path) -> None:
    ids = [f"sft-00000{n}" for n in range(7)]
    for n, run_id in enumerate(ids):
        made(tmp_path / "tiny", run_id, "sft", n)
    picker = RunPicker(tmp_path)
    heard = listening(picker)
    for run_id in ids:
        picker.hear({"kind": "choose", "key": f"tiny/{run_id}", "on": True})
    assert [r.id for r in picker.chosen] == ids[:6] and "6 runs at most" in heard[-1]["text"]
    assert f"tiny/{ids[6]}" not in heard[-2]["chosen"], "the page takes its tick back"


def test_notes_and_pins_lie_beside_the_run(outputs: Path) -> None:
    picker = RunPicker(outputs)
    heard = listening(picker)
    picker.hear({"kind": "note", "key": "tiny/sft-aaaaaa", "text": f"  the good one {EVIL} "})
    picker.hear({"kind": "pin", "key": "tiny/sft-aaaaaa", "on": True})
    assert runs.marks(run(outputs, "tiny/sft-aaaaaa")) == {"note": f"the good one {EVIL}", "pinned": True}
    assert (heard[-1]["row"]["note"], heard[-1]["row"]["pinned"]) == (f"the good one {EVIL}", True)
    assert RunPicker(outputs).snapshot()["rows"][0]["key"] == "tiny/sft-aaaaaa", "pinned runs come first"
    seen = RunPicker(outputs).static()
    assert EVIL not in seen.html and html.escape(EVIL) in seen.html


def test_looking_again_finds_new_runs_and_forgets_removed_ones(outputs: Path) -> None:
    picker = RunPicker(outputs, chosen=["dpo-bbbbbb", "dpo-cccccc"])
    heard = listening(picker)
    (outputs / "tiny" / "dpo-bbbbbb" / "run.json").unlink()
    made(outputs / "tiny", "ppo-eeeeee", "ppo", 9)
    picker.hear({"kind": "look"})
    keys = [r["key"] for r in heard[-1]["rows"]]
    assert keys[0] == "tiny/ppo-eeeeee" and "tiny/dpo-bbbbbb" not in keys and heard[-1]["chosen"] == ["tiny/dpo-cccccc"]


def test_a_stopped_run_says_where(tmp_path: Path) -> None:
    made(tmp_path / "tiny", "sft-aaaaaa", "sft", 0, stopped={"step": 12, "of": 40})
    [row] = RunPicker(tmp_path).snapshot()["rows"]
    assert row["stopped"] == "stopped at step 12 of 40"


def test_the_static_twin_is_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    ladder = synthetic.ladder(tmp_path / "tiny", n=2)
    seen = RunPicker(tmp_path, chosen=["sft", "dpo"])._repr_mimebundle_()["text/plain"]
    assert all(r.id in seen for r in ladder.values()) and seen.count("✓") == 2 and "made from sft" in seen
    assert weights(ladder["sft"]) == "none"
    empty = RunPicker(tmp_path / "nothing")
    assert "no finished runs" in empty.static().text and empty.snapshot() == {"rows": [], "chosen": [], "changes": None}
