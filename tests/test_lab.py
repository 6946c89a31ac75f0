"""The lab's promise: the same choices find the same run, a changed number re-makes what it touches, a half-made run is none.

The stages' work is replaced by a few lines that write files; planning, locking, logging and closing are the real ones.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_lab
import yaml

from labkit import runs, stages
from labkit.errors import LabError
from labkit.job import Job
from labkit.lab import Lab

MADE: list[str] = []


def work(job: Job) -> None:
    """What every stage does here: note that it ran, log a step, answer nothing."""
    MADE.append(job.name)
    job.log(1, 2, **{"train/loss": 1.0})
    (job.folder / "answers.jsonl").write_text("")
    if job.name == "preferences":
        job.lab.votes.add(tiny_lab.vote("Who?", ("a", "b"), (1, 2), run=job.id))
    with job.phase("train"):
        job.log(2, 2, **{"train/loss": 0.5})
    job.summary["votes"] = len(job.votes)


@pytest.fixture(autouse=True)
def quick_stages(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stages with their real settings and `work` for their work."""
    MADE.clear()
    real = {name: stages.module(name) for name in stages.STAGES}
    quick = {
        name: SimpleNamespace(
            VERSION=m.VERSION, Settings=m.Settings, READS_VOTES=getattr(m, "READS_VOTES", False), run=work
        )
        for name, m in real.items()
    }
    monkeypatch.setattr(stages, "module", quick.__getitem__)
    return quick


def opened(outputs: Path, **overrides: Any) -> Lab:
    """Overrides with `__` for the dots."""
    return Lab.open("smoke", {k.replace("__", "."): v for k, v in overrides.items()}, outputs=outputs)


def make(lab: Lab, *names: str) -> list[runs.Run]:
    return [lab.run(name) for name in names]


CHAIN = ("pretrain", "sft", "preferences", "reward", "dpo", "ppo")


def test_the_second_call_does_no_work(tmp_path: Path) -> None:
    first = make(opened(tmp_path), *CHAIN)
    assert MADE == list(CHAIN)
    again = make(opened(tmp_path), *CHAIN)
    assert [r.path for r in again] == [r.path for r in first] and MADE == list(CHAIN)
    assert list(opened(tmp_path).finished()) == [n for n in stages.GRAPH if n in CHAIN]


def test_the_manifest_tells_the_whole_story(tmp_path: Path) -> None:
    lab = opened(tmp_path, dpo__beta=0.2)
    sft, _, dpo = (make(lab, "pretrain", "sft", "preferences", "dpo")[i] for i in (1, 2, 3))
    told = dpo.manifest
    assert told["parents"] == {"sft": sft.id, "preferences": lab.plan("preferences").id}
    assert told["settings"]["beta"] == 0.2 and told["overrides"] == {"dpo.beta": 0.2}
    assert told["votes"] == 1 and len(dpo.votes()) == 1 and told["summary"] == {"votes": 1}
    assert set(told["phases"]) == {"train"} and told["seconds"] >= 0 and told["versions"]["torch"]
    assert yaml.safe_load((dpo.path / "recipe.yaml").read_text())["dpo"]["beta"] == 0.2
    assert [row["step"] for row in dpo.metrics()] == [1, 2]


def test_a_run_without_its_parent_says_which_page_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        LabError, match=r"sft needs the run pretrain-[0-9a-f]{6}.*run page 01_pretrain, or 'labkit run pretrain'"
    ):
        opened(tmp_path).run("sft")
    with pytest.raises(LabError, match="no run called 'spt'.*did you mean 'sft'"):
        opened(tmp_path).run("spt")


# ---- what an id depends on -----------------------------------------------------------------------


def ids(lab: Lab) -> dict[str, str]:
    return {name: lab.plan(name).id for name in CHAIN}


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ({"dpo__beta": 0.2}, {"dpo"}),
        ({"ppo__kl": 0.2}, {"ppo"}),
        ({"reward__epochs": 2}, {"reward", "ppo"}),
        ({"sft__epochs": 7}, set(CHAIN) - {"pretrain"}),
        ({"pretrain__tokens": 17_000}, set(CHAIN)),
        ({"model__hidden": 64}, set(CHAIN)),
        ({"seed": 1}, set(CHAIN)),
        ({"data__world__documents": 601}, set(CHAIN)),
        ({"compare__threads": 2}, set()),
        ({"votes__address": ""}, set()),
    ],
)  # fmt: skip
def test_a_changed_number_touches_its_stage_and_what_comes_after(
    tmp_path: Path, change: Any, touched: set[str]
) -> None:
    before, after = ids(opened(tmp_path)), ids(opened(tmp_path, **change))
    assert {n for n in CHAIN if before[n] != after[n]} == touched


def test_a_newer_stage_makes_a_new_run(tmp_path: Path, quick_stages: dict[str, Any]) -> None:
    before = ids(opened(tmp_path))
    quick_stages["reward"].VERSION += 1
    after = ids(opened(tmp_path))
    assert {n for n in CHAIN if before[n] != after[n]} == {"reward", "ppo"}


def test_two_runs_of_one_stage_have_ids_and_seeds_of_their_own(tmp_path: Path) -> None:
    lab = opened(tmp_path)
    assert len({lab.plan(n).id for n in stages.GRAPH}) == len(stages.GRAPH) >= 17
    jobs = [tiny_lab.job(tmp_path / n, n) for n in ("sft", "sft_twice")]
    assert jobs[0].seed != jobs[1].seed
    assert jobs[0].seed == tiny_lab.job(tmp_path / "again", "sft").seed


def test_new_votes_make_a_new_run_and_the_old_one_stays(tmp_path: Path) -> None:
    lab = opened(tmp_path)
    old = make(lab, *CHAIN)[3]
    lab.votes.add(tiny_lab.vote("What?", ("c", "d"), (2, 1), run=lab.plan("preferences").id))
    new = lab.run("reward")
    assert new.id != old.id and (old.summary["votes"], new.summary["votes"]) == (1, 2)
    assert len(old.votes()) == 1 and len(new.votes()) == 2 and runs.find(lab.folder, old.id)
    lab.votes.add(tiny_lab.vote("Elsewhere?", ("c", "d"), (2, 1), run="preferences-of-another"))
    assert lab.run("reward").id == new.id, "votes on another run's answers are not this one's"


def test_a_retracted_vote_gives_the_old_run_back(tmp_path: Path) -> None:
    lab = opened(tmp_path)
    old = make(lab, *CHAIN)[3]
    lab.votes.add(tiny_lab.vote("What?", ("c", "d"), (2, 1), run=lab.plan("preferences").id, id="mistake"))
    assert lab.plan("reward").id != old.id
    lab.votes.retract("mistake", rater="Wren")
    assert lab.plan("reward").id == old.id


# ---- what goes wrong -----------------------------------------------------------------------------


def test_a_killed_run_is_made_again(tmp_path: Path, quick_stages: dict[str, Any]) -> None:
    lab = opened(tmp_path)

    def killed(job: Job) -> None:
        work(job)
        raise KeyboardInterrupt

    quick_stages["pretrain"].run = killed
    with pytest.raises(KeyboardInterrupt):
        lab.run("pretrain")
    assert lab.find("pretrain") is None
    quick_stages["pretrain"].run = work
    assert lab.run("pretrain").metrics()[-1]["step"] == 2 and MADE == ["pretrain", "pretrain"]


def test_a_damaged_parent_is_said_before_any_work(tmp_path: Path) -> None:
    lab = opened(tmp_path)
    run = lab.run("pretrain")
    (run.path / "metrics.jsonl").write_text("")
    with pytest.raises(LabError, match=f"{run.id} is damaged"):
        lab.run("sft")
    assert MADE == ["pretrain"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, quick_stages: dict[str, Any], value: float) -> None:
    quick_stages["pretrain"].run = lambda job: job.log(3, 9, **{"train/loss": value})
    lab = opened(tmp_path)
    with pytest.raises(
        LabError, match=f"train/loss became {value} at step 3 of pretrain: lower pretrain.learning_rate"
    ):
        lab.run("pretrain")
    assert lab.find("pretrain") is None


def test_a_full_disk_is_said(tmp_path: Path, quick_stages: dict[str, Any]) -> None:
    def full(job: Job) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    quick_stages["pretrain"].run = full
    with pytest.raises(LabError, match="disk .* is full: free some space"):
        opened(tmp_path).run("pretrain")


def test_outputs_that_cannot_be_written_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder's place, and a folder without the permission (asked of the system by name: root may do
    all).
    """
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="Cannot write to .*choose another folder with --outputs"):
        opened(tmp_path / "file")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(LabError, match=r"Cannot write to .* \(Permission denied\): choose another folder"):
        opened(tmp_path / "locked")


def test_variants_share_runs_and_keep_their_pages_apart(tmp_path: Path) -> None:
    plain, changed = opened(tmp_path), opened(tmp_path, dpo__beta=0.2)
    assert plain.folder == changed.folder and plain.home == plain.folder
    assert changed.home == plain.folder / "variants" / "dpo.beta=0.2"
    make(plain, *CHAIN)
    MADE.clear()
    make(changed, *CHAIN)
    assert MADE == ["dpo"]


TWO = """
import sys, time
from pathlib import Path
from labkit import stages
from labkit.lab import Lab
real = stages.module("pretrain")
def slow(job):
    with open(Path(sys.argv[1]) / "made.txt", "a") as f:
        f.write("made\\n")
    time.sleep(1.5)
real.run = slow
print(Lab.open("smoke", outputs=sys.argv[1]).run("pretrain").id)
"""


def test_two_processes_that_ask_for_the_same_run_make_it_once(tmp_path: Path) -> None:
    """The second waits for the first and is handed its run."""
    both = [
        subprocess.Popen([sys.executable, "-c", TWO, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    said = [p.communicate(timeout=120)[0].strip() for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert said[0] == said[1] and said[0].startswith("pretrain-")
    assert (tmp_path / "made.txt").read_text() == "made\n"
    manifest = json.loads((tmp_path / "smoke" / said[0] / runs.MANIFEST).read_text())
    assert manifest["id"] == said[0]
