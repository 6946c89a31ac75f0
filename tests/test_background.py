"""Training beside the page: it ends whole, or stopped and honest about it, or not at all; and nobody who looks changes it.

The quick tests replace the stages' work by a hundred steps that only log; the slow ones train.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest

from labkit import background, runs, stages
from labkit.background import Background, train
from labkit.errors import LabError
from labkit.job import Job, Stop, Stopped
from labkit.lab import Lab

STEPS = 100


def work(job: Job) -> None:
    """What a stage does here: steps that log, weights that tell how many there were, an answers file."""
    step = 0
    for step in range(1, STEPS + 1):
        job.log(step, STEPS, **{"train/loss": 1 / step})
        if job.stops(step, STEPS):
            break
    (job.folder / "model").mkdir()
    (job.folder / "model" / "weights").write_text(str(step))
    (job.folder / "answers.jsonl").write_text("")
    job.cost.update(tokens=STEPS)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stages with their real settings and `quick.run` for their work."""
    chosen = SimpleNamespace(run=work)
    real = {name: stages.module(name) for name in stages.STAGES}
    fakes = {
        name: SimpleNamespace(VERSION=1, Settings=m.Settings, run=lambda job: chosen.run(job))
        for name, m in real.items()
    }
    monkeypatch.setattr(stages, "module", fakes.__getitem__)
    return chosen


@pytest.fixture(autouse=True)
def nothing_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(background, "_now", None)
    yield
    if background._now:
        background._now.discard()
        background._now.thread.join(20)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab.open("smoke", outputs=tmp_path)


def at(step: int, do: Callable[[Background], None]) -> Callable[[Job], None]:
    """The work, with `do` done to the training as its row `step` is heard."""

    def run(job: Job) -> None:
        mine = background._now
        assert mine
        mine.listeners.append(lambda: do(mine) if len(mine.rows) == step else None)
        work(job)

    return run


def held(gate: threading.Event) -> Callable[[Job], None]:
    def run(job: Job) -> None:
        assert gate.wait(20)
        work(job)

    return run


def over(training: Background) -> Background:
    """Wait until it is over, however."""
    with contextlib.suppress(LabError):
        training.wait()
    return training


def test_left_alone_it_makes_the_run_and_has_its_rows(lab: Lab, quick: Any) -> None:
    training = train(lab, "pretrain")
    run = training.wait()
    assert (training.state, training.run, training.said) == ("finished", run, "Finished: 100 steps.")
    assert run.id == lab.plan("pretrain").id and run.stopped is None and run.manifest["cost"] == {"tokens": STEPS}
    assert [r["step"] for r in training.rows] == list(range(1, STEPS + 1))
    assert training.rows == run.metrics() and not training.samples
    again = train(lab, "pretrain")
    assert again.state == "finished" and again.run.id == run.id and again.rows == training.rows
    assert not hasattr(again, "thread"), "what is finished needs no thread"
    again.stop(), again.discard()
    assert again.wait() == run, "there is nothing left to stop"


def test_a_stop_keeps_what_is_there_under_a_name_of_its_own(lab: Lab, quick: Any) -> None:
    quick.run = at(37, Background.stop)
    training = over(train(lab, "pretrain"))
    kept, whole = training.run, lab.plan("pretrain").id
    assert training.state == "stopped" and kept.id == f"{whole}.stopped-37"
    assert kept.stopped == {"step": 37, "of": 100} and (kept.model / "weights").read_text() == "37"
    assert kept.manifest["id"] == kept.id and kept.manifest["cost"] == {} and len(kept.metrics()) == 37
    kept.check()
    assert lab.find("pretrain") is None and "pretrain" not in lab.finished()
    assert [r.id for r in runs.every(lab.outputs)] == [kept.id]
    with pytest.raises(
        Stopped, match=rf"after step 37 of 100\. What it had learned is kept as {kept.id}\. .*needs the whole"
    ):
        training.wait()
    with pytest.raises(LabError, match=f"sft needs the run {whole}"):
        lab.run("sft")


def test_run_again_it_is_whole_and_the_stopped_one_stays(lab: Lab, quick: Any) -> None:
    quick.run = at(37, Background.stop)
    kept = over(train(lab, "pretrain")).run
    quick.run = work
    whole = train(lab, "pretrain").wait()
    assert (whole.model / "weights").read_text() == "100" and lab.find("pretrain") == whole
    assert (kept.model / "weights").read_text() == "37"
    assert [r.id for r in runs.every(lab.outputs)] == [kept.id, whole.id]


def test_stopped_twice_at_the_same_step_the_first_stays_with_its_note(lab: Lab, quick: Any) -> None:
    quick.run = at(37, Background.stop)
    first = over(train(lab, "pretrain")).run
    runs.note(first, text="a look")
    assert over(train(lab, "pretrain")).run.path == first.path and runs.marks(first)["note"] == "a look"
    quick.run = at(38, Background.stop)
    assert over(train(lab, "pretrain")).run.id.endswith(".stopped-38")
    assert [p.name for p in lab.folder.glob("pretrain-*")] and not (lab.folder / lab.plan("pretrain").id).exists()


def test_what_a_kill_left_of_a_stopped_run_is_none(lab: Lab, quick: Any) -> None:
    left = lab.folder / f"{lab.plan('pretrain').id}.stopped-37"
    left.mkdir()
    (left / "half").write_text("")
    assert list(runs.every(lab.outputs)) == []
    quick.run = at(37, Background.stop)
    assert not (over(train(lab, "pretrain")).run.path / "half").exists()


def test_a_stop_that_comes_with_the_last_step_leaves_a_whole_run(lab: Lab, quick: Any) -> None:
    quick.run = at(STEPS, Background.stop)
    training = train(lab, "pretrain")
    assert training.wait().id == lab.plan("pretrain").id and training.state == "finished"


def test_discarded_nothing_is_left_and_nobody_waits(lab: Lab, quick: Any) -> None:
    gate = threading.Event()
    quick.run = held(gate)
    training = train(lab, "pretrain")
    training.stop()
    assert training.state == "stopping"
    started = time.monotonic()
    training.discard()
    with pytest.raises(Stopped, match="Nothing of it is kept"):
        training.wait()
    assert time.monotonic() - started < 0.2 and training.thread.is_alive(), "the thread itself may end later"
    gate.set()
    training.thread.join(20)
    assert training.state == "stopped" and training.run is None
    assert not list(lab.folder.glob("pretrain-*")) and list(runs.every(lab.outputs)) == []


def test_discarded_in_the_middle_of_a_stage_that_never_stops_nothing_is_left(lab: Lab, quick: Any) -> None:
    """Answering and measuring ask nobody: what they made is dropped at the end."""
    gate = threading.Event()

    def run(job: Job) -> None:
        (job.folder / "answers.jsonl").write_text("")
        assert gate.wait(20)

    quick.run = run
    training = train(lab, "pretrain")
    training.discard()
    gate.set()
    training.thread.join(20)
    assert not list(lab.folder.glob("pretrain-*"))


def test_what_comes_after_a_discard_is_nobodys(lab: Lab) -> None:
    gate = threading.Event()

    def deaf(progress: Any, stop: Stop) -> str:
        assert gate.wait(20)
        return "late"

    training = Background(lab, deaf, name="deaf")
    training.discard()
    gate.set()
    training.thread.join(20)
    assert (training.state, training.run) == ("stopped", None)


@pytest.mark.parametrize(
    ("error", "said"),
    [(LabError("Too hot: cool it."), "Too hot: cool it."), (ValueError("seven"), "ValueError: seven")],
)
def test_what_fails_is_said_and_raised_where_it_is_joined(lab: Lab, quick: Any, error: Exception, said: str) -> None:
    def run(job: Job) -> None:
        raise error

    quick.run = run
    training = train(lab, "pretrain")
    with pytest.raises(type(error), match=str(error)):
        training.wait()
    assert (training.state, training.said, training.run) == ("failed", said, None)
    assert lab.find("pretrain") is None


def test_one_training_at_a_time(lab: Lab, quick: Any) -> None:
    gate = threading.Event()
    quick.run = held(gate)
    first = train(lab, "pretrain")
    assert train(lab, "pretrain") is first, "asked for again, it is the same one"
    assert train(Lab.open("smoke", outputs=lab.outputs), "pretrain") is first, "also from a page that was run anew"
    other = Lab.open("smoke", {"seed": 7}, outputs=lab.outputs)
    with pytest.raises(LabError, match=f"{first.id} is being trained in this kernel: wait for it or press its Stop"):
        train(other, "pretrain")
    gate.set()
    first.wait()
    assert train(other, "pretrain").wait().id == other.plan("pretrain").id


def test_after_a_discard_the_next_waits_for_the_thread(lab: Lab, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    quick.run = held(gate)
    first = train(lab, "pretrain")
    first.discard()
    monkeypatch.setattr(background, "LINGER", 0.05)
    with pytest.raises(LabError, match="is still ending"):
        train(lab, "pretrain")
    monkeypatch.setattr(background, "LINGER", 20)
    threading.Timer(0.2, gate.set).start()
    assert train(lab, "pretrain").wait().id == lab.plan("pretrain").id


def test_an_interrupt_is_a_stop_and_a_second_one_gives_up(lab: Lab, quick: Any) -> None:
    gate = threading.Event()
    quick.run = held(gate)
    training = train(lab, "pretrain")
    threading.Timer(0.2, _thread.interrupt_main).start()
    threading.Timer(0.6, gate.set).start()
    with pytest.raises(Stopped, match="after step 1 of 100"):
        training.wait()
    gate.clear()
    training = train(lab, "pretrain")
    for seconds in (0.2, 0.6):
        threading.Timer(seconds, _thread.interrupt_main).start()
    with pytest.raises(Stopped, match="Nothing of it is kept"):
        training.wait()
    gate.set()


def test_awaiting_it_leaves_the_loop_free_and_a_cancelled_cell_is_a_stop(lab: Lab, quick: Any) -> None:
    gate = threading.Event()
    quick.run = held(gate)
    training = train(lab, "pretrain")

    async def joined() -> Any:
        return await training

    async def page() -> int:
        cell = asyncio.ensure_future(joined())
        clicks = 0
        for _ in range(5):
            await asyncio.sleep(0.01)
            clicks += 1
        cell.cancel()  # what the kernel does when it is interrupted
        await asyncio.sleep(0.1)
        assert not cell.done() and training.state == "stopping"
        gate.set()
        with pytest.raises(Stopped, match="after step 1 of 100"):
            await cell
        return clicks

    assert asyncio.run(page()) == 5
    assert asyncio.run(_await(train(lab, "pretrain"))).id == lab.plan("pretrain").id


async def _await(training: Background) -> Any:
    return await training


def test_any_function_can_be_watched_and_steps_that_begin_anew_are_counted_on(lab: Lab) -> None:
    def both(progress: Any, stop: Stop) -> str:
        for metric in ("train/accuracy", "train/loss"):
            for step in (1, 2):
                progress({"step": step, "of": 2, "seconds": float(step), metric: 0.5})
        return "retrained"

    training = Background(lab, both, name="retrain")
    assert training.wait() == "retrained" and (training.title, training.state) == ("retrain", "finished")
    assert [(r["step"], r["of"]) for r in training.rows] == [(1, 2), (2, 2), (3, 4), (4, 4)]


def test_answers_are_asked_for_a_dozen_times_a_round_and_at_its_end(
    lab: Lab, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounds(job: Job) -> None:
        job.log(1, 1, votes=1)  # before there is a model
        for _ in range(2):
            job.policy = "model"
            for step in range(1, 31):
                job.log(step, 30, **{"train/loss": 1.0})

    monkeypatch.setattr(background, "answered", lambda job: [{"prompt": "Who?", "answer": job.policy, "gold": None}])
    quick.run = rounds
    training = Background(lab, "pretrain", sample=True)
    training.wait()
    assert [s["step"] for s in training.samples] == [*range(1, 30, 2), 30, *range(32, 61, 2)]
    quiet = Background(Lab.open("smoke", {"seed": 3}, outputs=lab.outputs), "pretrain")
    quiet.wait()
    assert not quiet.samples, "where no page is attached nobody is asked"


def test_the_time_left_is_the_pace_so_far(lab: Lab) -> None:
    gate, told = threading.Event(), threading.Event()

    def slow(progress: Any, stop: Stop) -> None:
        for step, seconds in ((1, 9.0), (11, 14.0)):  # nine seconds went into loading: half a second a step
            progress({"step": step, "of": 21, "seconds": seconds})
        told.set()
        assert gate.wait(20)

    training = Background(lab, slow, name="slow")
    assert told.wait(20) and training.left() == 5.0
    gate.set()
    training.wait()
    assert training.left() is None


def test_a_view_that_breaks_ends_no_training(lab: Lab, quick: Any) -> None:
    quick.run = at(5, lambda training: 1 / 0)
    assert train(lab, "pretrain").wait().id == lab.plan("pretrain").id


def test_a_stop_is_heard_while_another_kernel_makes_the_run(lab: Lab, quick: Any) -> None:
    with filelock.FileLock(lab.folder / f".{lab.plan('pretrain').id}.lock"):
        training = train(lab, "pretrain")
        time.sleep(0.2)
        training.stop()
        with pytest.raises(Stopped, match="another kernel was making the same run"):
            training.wait()
    assert training.run is None


def test_looking_puts_random_states_and_modes_back() -> None:
    import random

    import numpy as np
    import torch

    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2))
    model[1].eval()
    draws = []
    for look in (False, True):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if look:
            with background._untouched(model):
                random.random(), np.random.rand(), torch.rand(1)
                model.eval()
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
    assert [m.training for m in model.modules()] == [True, True, False]


def test_importing_it_is_light() -> None:
    code = "import sys, labkit.background; print([m for m in ('torch', 'transformers', 'trl') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- for real ------------------------------------------------------------------------------------

CHAIN = ("pretrain", "sft", "preferences", "dpo", "reward", "ppo")
TUNED = ("pretrain", "sft", "dpo", "ppo")


def opened(outputs: Path) -> Lab:
    few = {
        "pretrain.tokens": 8000,
        "answers.max_tokens": 12,
        "preferences.prompts": 12,
        "reward.batch": 4,
        "dpo.batch": 8,
    }
    world = {"documents": 300, "demonstrations": 60, "test_prompts": 12, "validation_prompts": 12}
    return Lab.open("smoke", few | {f"data.world.{k}": v for k, v in world.items()}, outputs=outputs)


def content(lab: Lab) -> dict[str, str]:
    """SHA-256 of every weight file and answers file of the whole runs."""
    files = [
        f
        for run in lab.finished().values()
        for f in run.path.rglob("*")
        if f.name == "answers.jsonl" or f.suffix == ".safetensors"
    ]
    return {str(f.relative_to(lab.folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.slow
def test_watched_asked_and_stopped_on_the_way_every_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """One lab left in peace; in the other every run is stopped, looked at, made again with answers on the way, while
    somebody asks the finished models."""
    from labkit import ask

    peace, busy = opened(tmp_path / "peace"), opened(tmp_path / "busy")
    for name in CHAIN:
        peace.run(name)
        if name != "preferences":
            stopped = _stopped_soon(busy, name)
            assert stopped.metrics()[-1]["step"] == stopped.stopped["step"] and (stopped.model / "config.json").exists()
            assert name == "reward" or {a.author for a in stopped.answers("validation")} >= {name}
        training = Background(busy, name, sample=True)
        models = ask.answerers(busy, "pretrain")
        while training.state == "running" and models:
            models["pretrain"]("Who lives by the sea?", seed=1)
            time.sleep(0.1)
        training.wait()
        assert bool(training.samples) == (name in TUNED), name
        if training.samples:
            assert training.samples[0]["step"] == 1 and training.samples[-1]["step"] == training.rows[-1]["step"]
            assert [set(a) for a in training.samples[-1]["answers"]] == [{"prompt", "answer", "gold"}] * 2
    assert content(peace) == content(busy)
    assert len(content(busy)) >= 5 + 4  # weights of five, answers of four
    assert len(list(busy.folder.glob("*.stopped-?"))) == 5


def _stopped_soon(lab: Lab, name: str) -> runs.Run:
    training = Background(lab, name)
    training.listeners.append(training.stop)  # at the first row
    return over(training).run
