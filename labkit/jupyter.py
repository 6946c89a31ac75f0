"""JupyterLab on the notebooks, on this machine alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import click

from labkit.pipeline import NOTEBOOKS, ROOT, SPIN


def serve(port: int, *, browser: bool = True) -> int:
    """Become JupyterLab (where a process cannot, wait for it and return its exit code).

    The file browser shows the notebooks, and their kernels start in the project's folder, as they do under `labkit run`:
    "outputs" means the same folder in both. A token is made by the server and printed with its address.
    """
    free = _free(port)
    if free != port:
        click.echo(
            f"Port {port} is taken: using {free}. Labels not yet saved in the browser wait at the old address.",
            err=True,
        )
    command = [
        *(sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={free}"),
        *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={NOTEBOOKS}", f"--MappingKernelManager.root_dir={ROOT}"),
        *("--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
        *(() if browser else ("--no-browser",)),
        *(("--allow-root",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()),
    ]
    env = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1"}
    env.setdefault(*SPIN)
    if os.name == "posix":  # the server takes this process over: Ctrl-C and kill reach it, and it alone
        os.execve(command[0], command, env)
    return subprocess.call(command, env=env)


def _free(port: int) -> int:
    """`port`, or the next one above it that nobody listens on."""
    for candidate in range(port, min(port + 50, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    return port
