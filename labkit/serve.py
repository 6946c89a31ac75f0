"""`labkit label`: the labeller for people who have no JupyterLab, served by Voila on this machine's loopback.

Whoever has the address with its token gets the page `served/label.ipynb` and a kernel behind it, and nothing else: neither files nor
code. All of them judge the same answers, and every vote goes into the recipe's one store under the name that the person chose.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.feedback.session import Session
    from labkit.lab import Lab

SERVED = Path(__file__).with_name("served")
PORT = 8866
TASK = "LABKIT_LABEL"  # the environment variable by which the kernels are told what there is to judge
# The browser itself keeps the page from asking, loading or sending anything anywhere else. Widgets are modules in blobs.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; object-src 'none';"
    " base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # the address holds the token
}
ABANDONED = 15 * 60  # seconds after which a kernel that no page listens to is ended; votes are in the store by then


def label(lab: Lab, port: int = PORT, mode: str = "pair") -> None:
    """Serve until SIGTERM, or Ctrl-C (which raises KeyboardInterrupt), and leave no kernel behind.

    The token is a new one each time, or JUPYTER_TOKEN.

    Raises LabError when there is nothing to judge, Voila is missing or the port is taken: another port would be another
    origin to the browsers, and votes that still wait in them would wait for ever.
    """
    if importlib.util.find_spec("voila") is None:
        raise LabError("Voila, which serves the page, is not installed: pip install voila, or run make install.")
    given = json.dumps(task(lab, mode))
    if not _is_free(port):
        raise LabError(f"Port {port} is taken, perhaps by another labkit label: stop that one, or choose --port.")
    # For the kernels: what is asked, that a page listens, and to be this environment's, not one from the home.
    os.environ.update({TASK: given, "JPY_SESSION_NAME": "label", "JUPYTER_PREFER_ENV_PATH": "1"})
    _serve(port, os.environ.get("JUPYTER_TOKEN") or secrets.token_urlsafe(18))


def task(lab: Lab, mode: str) -> dict[str, str]:
    """What the kernels need to know: the folder of the preferences run, the address of the store, and what is asked."""
    from labkit.feedback.items import items_from_run

    run = lab.find("preferences")
    if not run:
        raise LabError(
            f"There is nothing to judge yet in {lab.folder}: make the answers first with 'labkit run preferences'."
        )
    items_from_run(run, mode=mode, limit=1)  # says now what every page would have to say
    shown = lab.votes.address  # opens the store; what it shows has no password
    return {"run": str(run.path), "votes": lab.recipe["votes"].address or shown, "mode": mode}


def session(name: str) -> Session:
    """In a served page: what `name` is asked, in the same order as everybody."""
    from labkit.feedback.session import Session, items_from_run
    from labkit.feedback.store import VoteStore
    from labkit.runs import Run

    if TASK not in os.environ:
        raise LabError("This page is served by 'labkit label': start that, and open the address that it prints.")
    told = json.loads(os.environ[TASK])
    items = items_from_run(Run(Path(told["run"])), mode=told["mode"])
    return Session(VoteStore(told["votes"]), items, name, told["mode"])


def _serve(port: int, token: str) -> None:
    from tornado.ioloop import IOLoop
    from voila.app import Voila

    logging.getLogger("tornado").setLevel(logging.ERROR)  # who asked for what is nobody's business
    app = Voila(log_level="ERROR")
    app.initialize([str(SERVED / "label.ipynb")])
    close(app, port, token)
    signals: list[int] = []

    def stop(number: int, frame: Any) -> None:
        signals.append(number)
        loop.add_callback_from_signal(loop.stop)

    loop = IOLoop.current()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    loop.add_callback(_tell, f"http://127.0.0.1:{port}/?token={token}")  # heard once the port is open
    app.start()
    if signal.SIGINT in signals:
        raise KeyboardInterrupt


def close(app: Any, port: int, token: str) -> None:
    """Shut what Voila leaves open, whatever a configuration file on this machine says: this is set after those are read."""
    app.ip, app.port, app.port_retries, app.open_browser, app.token = "127.0.0.1", port, 0, False, token
    app.tornado_settings = {"headers": HEADERS}
    app.template_paths = [str(SERVED), *app.template_paths]
    page = app.voila_configuration
    page.strip_sources, page.show_tracebacks = True, False
    page.file_allowlist, page.file_denylist = [], [".*"]
    page.template, page.allow_template_override = "lab", "NO"
    page.theme, page.allow_theme_override = "light", "NO"
    page.preheat_kernel = page.progressive_rendering = False
    page.prelaunch_hook = _may_end
    app.config.KernelManager.update(shutdown_wait_time=2.0)
    app.config.MappingKernelManager.update(cull_idle_timeout=ABANDONED, cull_interval=60, cull_connected=False)
    if (
        os.name == "posix"
    ):  # the kernels' channels in a folder of one's own: no port for other users of the machine to try
        app.config.KernelManager.update(transport="ipc")


def _may_end(handler: Any, notebook: Any = None, cwd: str = "") -> None:
    """Give the page the cookie without which it may not end its own kernel when it is closed: to read it is to set it."""
    handler.xsrf_token  # noqa: B018


def _tell(address: str) -> None:
    click.echo(f"The labeller for everybody on this machine: {address}")
    click.echo("Each person opens it in a browser of their own and types a name. Ctrl-C ends it; votes are safe.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
