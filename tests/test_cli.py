"""The command line: what it says, its exit codes, and that help costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import __main__ as cli
from labkit import pipeline
from labkit.errors import LabError
from labkit.pipeline import Outcome
from labkit.progress import ladder_lines
from labkit.records import Answer, Prompt, write_jsonl


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `labkit ARGUMENTS` in this process: exit code, what went to stdout, what went to stderr."""
    monkeypatch.setattr(sys, "argv", ["labkit", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


@pytest.fixture
def labkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


def finished(outputs: Path, run_id: str, *, texts: dict[str, float] | None = None, weights: bool = True) -> Path:
    """A finished run with answers: gold by prompt."""
    folder = outputs / "tiny" / run_id
    (folder / "model").mkdir(parents=True) if weights else folder.mkdir(parents=True)
    if weights:
        (folder / "model" / "model.safetensors").write_bytes(b"x" * 1_000_000)
    stage = run_id.split("-")[0]
    answers = [
        Answer(prompt=Prompt.of(q, split="validation"), text="yes", author=stage, tokens=1, scores={"gold": gold})
        for q, gold in (texts or {}).items()
    ]
    write_jsonl(folder / "answers.jsonl", answers)
    facts = {"id": run_id, "name": stage, "stage": stage, "recipe": "tiny", "overrides": {}, "summary": {}, "files": {}}
    facts |= {"seconds": 41.2, "finished": f"2026-01-0{1 + len(list(folder.parent.iterdir()))}T10:00:00"}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


# Help, errors, exit codes ---------------------------------------------------------------------------------------------


def test_help_names_every_command_and_loads_nothing() -> None:
    code = (
        "import sys; sys.argv = ['labkit', '--help']\n"
        "from labkit.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as e: code = e.code\n"
        "print(code, [m for m in ('torch', 'pydantic', 'rich', 'yaml', 'papermill', 'IPython') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for command in ("run", "runs", "clean", "lab", "report", "compare", "bench"):
        assert f"\n  {command} " in out
    assert out.strip().endswith("0 []")


@pytest.mark.parametrize("command", ["run", "report"])
def test_a_lab_is_named_in_the_same_words_everywhere(labkit: Any, command: str) -> None:
    code, out, _ = labkit(command, "--help")
    assert code == 0 and all(word in out for word in ("--recipe NAME|FILE", "-p stage.key=value", "--outputs DIR"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "ppoo"), "There is no stage called 'ppoo': did you mean 'ppo'?"),
        (("run", "--recipe", "tinny"), "There is no recipe called 'tinny': did you mean 'tiny'?"),
        (("run", "-p", "dpo.betta=1"), "did you mean 'dpo.beta'?"),
        (("run", "-p", "dpo.beta=hot"), "dpo.beta"),
        (("run", "-p", "beta"), "'beta' is not stage.key=value"),
        (("run", "--jobs", "0"), "--jobs"),
        (("run", "--recipe", "mine.yaml"), "There is no recipe file mine.yaml"),
        (("rum",), "No such command 'rum'"),
        (("runs", "pin", "ppo-1"), "There is no finished run 'ppo-1'"),
        (("compare", "a", "b"), "There is no finished run 'a'"),
        (("report",), "no finished run of tiny"),
    ],
)
def test_mistakes_get_a_sentence_and_exit_code_2(
    labkit: Any, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    where = () if arguments[0] == "rum" else ("--outputs", str(tmp_path))
    code, _, err = labkit(arguments[0], *where, *arguments[1:])
    assert code == 2 and said in err and "Traceback" not in err


def test_an_outputs_folder_that_cannot_be_written(labkit: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = labkit("run", "--outputs", str(tmp_path / "file" / "below"))
    assert code == 2 and "choose another folder with --outputs" in err
    code, _, err = labkit("runs", "--outputs", str(tmp_path / "nowhere"))
    assert code == 2 and "There is no outputs folder" in err


def test_how_commands_end(labkit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """130 and "goes on" for Ctrl-C, one sentence for a fault of ours, the traceback with --debug alone."""

    def raising(error: BaseException) -> Any:
        def run(*_: Any, **__: Any) -> Outcome:
            raise error

        return run

    here = ("--outputs", str(tmp_path))
    monkeypatch.setattr(pipeline, "run", raising(KeyboardInterrupt()))
    code, _, err = labkit("run", "ppo", *here)
    assert code == 130 and f"stopped; the same command goes on: labkit run ppo --outputs {tmp_path}" in err
    monkeypatch.setattr(pipeline, "run", raising(ZeroDivisionError("division by zero")))
    code, _, err = labkit("run", *here)
    assert code == 2 and "ZeroDivisionError: division by zero" in err and "--debug" in err and "Traceback" not in err
    monkeypatch.setattr(sys, "argv", ["labkit", "run", *here, "--debug"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
    monkeypatch.setattr(pipeline, "run", raising(LabError("Too hot: cool it.")))
    assert labkit("run", *here)[::2] == (2, "Too hot: cool it.\n")


def test_run_hands_on_what_was_asked(labkit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(lab: Any, targets: Any, **options: Any) -> Outcome:
        seen.update(lab=lab, targets=targets, **options)
        report = lab.home / "report.html"
        rows = [{"stage": "sft", "gold": 0.5, "gold_ci": [0.36, 0.65], "win_over_sft": None, "refuse_harm": 0.4}]
        (lab.home / "ladder.json").write_text(json.dumps({"rows": rows}))
        return Outcome(made={"06_ppo": 3.0}, kept=["02_sft"], report=report, seconds=75, peak_mb=900)

    monkeypatch.setattr(pipeline, "run", run)
    words = (
        "run",
        "ppo",
        "report",
        "-p",
        "ppo.kl=0",
        "-p",
        "seed=3",
        "--outputs",
        str(tmp_path),
        "--jobs",
        "1",
        "--fresh",
    )
    code, out, _ = labkit(*words)
    assert code == 0 and seen["targets"] == ("ppo", "report") and seen["jobs"] == 1 and seen["fresh"]
    assert seen["lab"].recipe.seed == 3 and seen["lab"].home == tmp_path / "tiny" / "variants" / "ppo.kl=0,seed=3"
    assert seen["recipe"] == "tiny" and seen["again"].startswith("labkit run ppo report -p ppo.kl=0")
    assert "1 pages made, 1 stood already, 1 min 15 s, at most 900 MB" in out
    assert "0.50  [0.36, 0.65]" in out and "0.40" in out


def test_the_ladder_in_a_few_lines() -> None:
    rows = [
        {"stage": "sft", "gold": 0.5, "gold_ci": [0.36, 0.65], "win_over_sft": 0.5, "refuse_harm": 0.4},
        {"stage": "reward"},
    ]
    lines = ladder_lines(rows)
    assert len(lines) == 2, "a model without answers is no row"
    assert lines[1].split() == ["sft", "0.50", "[0.36,", "0.65]", "0.50", "0.40"]


# Runs -----------------------------------------------------------------------------------------------------------------


def test_runs_are_listed_noted_pinned_and_cleaned(labkit: Any, tmp_path: Path) -> None:
    """Two runs of a megabyte each; the pinned one keeps its weights. Votes are not looked at."""
    outputs = ("--outputs", str(tmp_path))
    kept, cleaned = finished(tmp_path, "sft-aaaaaa"), finished(tmp_path, "ppo-bbbbbb")
    (tmp_path / "votes.sqlite").write_text("votes")
    assert labkit("runs", *outputs, "note", "sft", "the good [red]one")[0] == 0
    code, out, _ = labkit("runs", *outputs, "pin", "sft-a")
    assert code == 0 and "sft-aaaaaa: pinned, the good [red]one" in out
    code, out, _ = labkit("runs", *outputs)
    assert code == 0 and out.index("sft-aaaaaa") < out.index("ppo-bbbbbb") and "pinned the good [red]one" in out
    code, out, _ = labkit("clean", *outputs, "--yes")
    assert code == 0 and "1 runs cleaned, 1 MB freed" in out
    assert (kept / "model").exists() and not (cleaned / "model").exists()
    assert (tmp_path / "votes.sqlite").read_text() == "votes"
    assert "No weights to remove" in labkit("clean", *outputs)[1]
    assert labkit("runs", *outputs, "unpin", "sft")[0] == 0
    assert "No weights" in labkit("clean", *outputs, "--recipe", "small", "--yes")[1]
    assert "1 runs cleaned" in labkit("clean", *outputs, "--recipe", "tiny", "--yes")[1]


def test_the_start_of_an_id_must_mean_one_run(labkit: Any, tmp_path: Path) -> None:
    finished(tmp_path, "ppo-aaaaaa")
    finished(tmp_path, "ppo-bbbbbb")
    code, _, err = labkit("runs", "--outputs", str(tmp_path), "pin", "ppo")
    assert code == 2 and "could be any of tiny/ppo-aaaaaa, tiny/ppo-bbbbbb" in err


def test_two_runs_compared(labkit: Any, tmp_path: Path) -> None:
    """ppo is 1 above sft on both prompts: gold 2 against 1, and it wins every time."""
    finished(tmp_path, "sft-aaaaaa", texts={"a?": 0.0, "b?": 2.0})
    finished(tmp_path, "ppo-bbbbbb", texts={"a?": 1.0, "b?": 3.0})
    code, out, _ = labkit("compare", "sft", "ppo-b", "--outputs", str(tmp_path))
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert code == 0 and "gold on 2 validation prompts, against sft" in out
    assert rows["gold"][0] == "1" and "2" in rows["gold"] and rows["run"] == ["sft-aaaaaa", "ppo-bbbbbb"]
