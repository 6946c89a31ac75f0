"""`labkit lab`: JupyterLab on this machine alone, with kernels that work where the pages of `labkit run` work."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from labkit import jupyter


def test_a_taken_port_gives_the_next_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert jupyter._free(port) > port


@pytest.mark.slow
def test_jupyterlab_starts_on_loopback_with_kernels_in_the_project(tmp_path: Path, root: Path) -> None:
    """With the token the notebooks are listed, without it nothing is; a page's kernel works where `labkit run` works."""
    port = jupyter._free(18888)
    env = {
        **os.environ,
        "JUPYTER_TOKEN": "secret",
        "HOME": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    words = [sys.executable, "-m", "labkit", "lab", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(words, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str, token: str = "secret", body: dict | None = None) -> Any:
        headers = {"Authorization": f"token {token}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", data=data, headers=headers)
        return json.loads(urllib.request.urlopen(request, timeout=20).read())

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return bool(ask("status"))
        return False

    try:
        deadline = time.monotonic() + 60
        while not answers():
            assert server.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        listed = {item["name"] for item in ask("contents/")["content"]}
        assert listed == {f.name for f in (root / "notebooks").iterdir() if not f.name.startswith(".")}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask("contents/", token="guess")
        page = {"path": "00_start_here.ipynb", "name": "", "type": "notebook", "kernel": {"name": "python3"}}
        ask("sessions", body=page)
        places: set[str] = set()
        while not places and time.monotonic() < deadline + 60:  # for a moment a new process bears its parent's name
            below = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
            with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # a helper that has just ended
                places = {p.cwd() for p in below if "ipykernel_launcher" in " ".join(p.cmdline())}
        below = [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        assert places == {str(root)}
        addresses = {c.laddr.ip for p in below for c in p.net_connections(kind="tcp") if c.status == "LISTEN"}
        assert addresses == {"127.0.0.1"}
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), server]:
            process.kill()
        server.wait()
