"""A ladder that was killed again and again ends with the same bytes as one that was left in peace (recipe smoke)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

KILLS = (9.0, 7.0, 12.0)  # seconds after each start: while importing, in a stage, between pages


def command(outputs: Path) -> list[str]:
    return [sys.executable, "-m", "labkit", "run", "--recipe", "smoke", "--outputs", str(outputs)]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "started", "finished")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def content(outputs: Path) -> dict[str, str]:
    """SHA-256 of every weight file, every answers file, and the ladder without its times."""
    files = [*outputs.rglob("*.safetensors"), *outputs.rglob("answers.jsonl")]
    out = {str(f.relative_to(outputs)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    ladder = without_times(json.loads((outputs / "smoke" / "ladder.json").read_text()))
    return out | {"ladder.json": hashlib.sha256(json.dumps(ladder, sort_keys=True).encode()).hexdigest()}


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    killed, peaceful = tmp_path / "killed", tmp_path / "peaceful"
    for seconds in KILLS:
        process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed: shorten KILLS"
    for outputs in (killed, peaceful):
        done = subprocess.run(command(outputs), capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert content(killed) == content(peaceful)
    assert sum(name.endswith(".safetensors") for name in content(killed)) == 41  # each policy, critic and reward model
