"""Servers of the tests' own on loopback: JupyterLab, or any program, with no settings of the user's and no way out.

Kernels and servers are given a proxy that is not there, so that what asks another machine fails at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbformat.sign import NotebookNotary

ROOT = Path(__file__).resolve().parents[2]
CLOSED = "http://127.0.0.1:9"  # a proxy that is not there: what asks it goes nowhere
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},  # else a cell off the screen is not in the page
    "docmanager-extension/plugin": {"autosave": False},
}


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def isolated(home: Path) -> dict[str, str]:
    """The environment of a program that shall see no settings of whoever runs the tests, and no network."""
    own = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "PYTHONPATH": ROOT,
    }
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), CLOSED)
    local = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JPY_", "JUPYTER_"))}
    return {**kept, **proxies, **local, **{k: str(v) for k, v in own.items()}, "JUPYTER_PREFER_ENV_PATH": "1"}


class Server:
    """A program that serves HTTP on 127.0.0.1, its words in `log`; `stop` leaves no process behind."""

    def __init__(self, home: Path, command: Sequence[str], *, port: int, token: str, env: dict[str, str] | None = None):
        self.home, self.port, self.token = home, port, token
        self.base = f"http://127.0.0.1:{port}"
        self.log = home / "server.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, env={**isolated(home), **(env or {})}, cwd=home, stdout=log, stderr=subprocess.STDOUT
            )

    def wait(self, path: str, seconds: float = 60) -> None:
        """Return once `path` is answered; raise with the server's own words when it ends or stays silent."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.ask(path)
                return
            except urllib.error.HTTPError:  # no such page, says a server that is there
                return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.05)

    def ask(self, path: str, method: str = "GET", token: str | None = None) -> Any:
        """What the server answers with the token, from JSON where it is JSON; raises urllib's HTTPError."""
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        request = urllib.request.Request(self.base + path, method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            body = answer.read()
        with contextlib.suppress(ValueError):
            return json.loads(body)
        return body

    def stop(self) -> None:
        """End it and its kernels, politely first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(signal.SIGTERM)
            _, alive = psutil.wait_procs([psutil.Process(self.process.pid)], timeout=5)
            for one in [*alive, *below]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()


def jupyterlab(home: Path) -> Server:
    """JupyterLab over the folder `home`/pages, started and answering."""
    for name, value in SETTINGS.items():
        _setting(home, name, value)
    (home / "pages").mkdir()
    port, token = free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--ServerApp.root_dir={home / 'pages'}", "--ServerApp.terminals_enabled=False"),
        *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        *(
            "--LabApp.extension_manager=readonly",
            "--KernelRestarter.time_to_dead=0.5",
            "--KernelManager.shutdown_wait_time=1",
        ),
    ]
    server = Server(home, command, port=port, token=token, env={"JUPYTER_TOKEN": token})
    server.wait("/api/status")
    return server


def _setting(home: Path, name: str, value: Any) -> None:
    """Write one of JupyterLab's settings where it reads them, so that nothing need be clicked."""
    file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


def write_notebook(server: Server, name: str, cells: Sequence[str]) -> Path:
    """A notebook of code cells in the folder that the server shows."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return place_notebook(server, name, made)


def place_notebook(server: Server, name: str, made: Any, *, trusted: bool = False) -> Path:
    """Put a notebook into the server's folder; `trusted` signs it, so that JupyterLab shows its outputs as its own."""
    file = server.home / "pages" / f"{name}.ipynb"
    nbformat.write(made, file)
    if trusted:
        NotebookNotary(data_dir=str(server.home / "data")).sign(nbformat.read(file, as_version=4))
    return file
