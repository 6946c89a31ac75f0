"""`labkit label`: what it says when it cannot, what a page is given, and what somebody with the token can reach."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asked
import nbformat
import psutil
import pytest

from labkit import serve
from labkit.errors import LabError
from labkit.lab import Lab
from widgets.name import NameView
from widgets.view import View


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return asked.preferences(tmp_path, asked.plain(12))[0]


def test_without_answers_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="labkit run preferences"):
        serve.label(Lab.open("smoke", outputs=tmp_path))


def test_a_taken_port_is_not_exchanged_for_another(lab: Lab) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"Port {port} is taken.*--port"):
            serve.label(lab, port)


def test_without_voila_it_says_what_to_install(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="pip install voila"):
        serve.label(lab)


def test_everybody_is_asked_the_same_and_keeps_an_own_book(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serve.TASK, json.dumps(serve.task(lab, "pair")))
    ada, ben = serve.session("Ada"), serve.session("Ben")
    first = [q.item for q in ada.window(5)]
    assert first == [q.item for q in ben.window(5)] and len(first) == 5
    question = ada.wire(ada.window(1)[0])
    shown = [a["key"] for a in question["answers"]]
    ada.take({"id": "one", "item": question["id"], "shown": shown, "ranks": [1, 2]})
    assert ada.progress()["done"] == 1 and ben.progress()["done"] == 0
    assert [(v.rater, v.run) for v in lab.votes.votes(source="person")] == [("Ada", lab.plan("preferences").id)]


def test_the_kernels_are_told_the_whole_address_of_the_store(lab: Lab) -> None:
    """A store shows its address without the password, with which alone it can be opened."""
    address = "postgresql+psycopg://me:secret@db/votes"
    other = Lab.open("smoke", {"votes.address": address}, outputs=lab.outputs)
    other.__dict__["votes"] = SimpleNamespace(address=address.replace("secret", "***"))
    assert serve.task(other, "thumb") == {**serve.task(lab, "thumb"), "votes": address}


def test_a_page_elsewhere_says_how_it_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(serve.TASK, raising=False)
    with pytest.raises(LabError, match="labkit label"):
        serve.session("Ada")


def test_what_is_served_asks_no_other_machine() -> None:
    page = nbformat.read(serve.SERVED / "label.ipynb", as_version=4)
    assert all(not cell.get("outputs") and "def " not in cell.source for cell in page.cells)
    files = list(serve.SERVED.iterdir())
    assert len(files) == 2
    assert not [f.name for f in files if re.search(r"(https?:)?//\w", f.read_text(encoding="utf-8"))]
    assert not re.search(r"[*]|https?:", serve.HEADERS["Content-Security-Policy"])


def test_a_name_opens_the_view_and_another_name_another() -> None:
    class Work(View):
        def __init__(self, name: str) -> None:
            if name == "bad":
                raise LabError("Not this one.")
            self.name = name

        widget = None  # type: ignore[assignment]

    view, said = NameView(Work), []
    view.say = lambda kind, **content: said.append((kind, content))  # type: ignore[method-assign]
    view.__dict__["widget"], view.__dict__["box"] = "front", type("Box", (), {"children": ()})()
    view.hear({"kind": "ready"})
    view.hear({"kind": "name", "name": "bad"})
    assert view.view is None and said[-1] == ("error", {"text": "Not this one.", "about": None})
    view.hear({"kind": "name", "name": "  Ada  Lovelace "})
    assert view.view.name == "Ada Lovelace" and said[-1] == ("snapshot", {"name": "Ada Lovelace"})
    assert view.box.children == ("front", None)
    view.hear({"kind": "leave"})
    assert view.view is None and view.box.children == ("front",) and said[-1] == ("snapshot", {"name": ""})


class Served:
    """`labkit label` in a process of its own."""

    def __init__(self, lab: Lab, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base, self.log = f"http://127.0.0.1:{self.port}", home / "label.log"
        words = [sys.executable, "-m", "labkit", "label", "--recipe", "smoke", "--port", str(self.port)]
        env = {**os.environ, "HOME": str(home), "JUPYTER_TOKEN": "secret", "JUPYTER_CONFIG_DIR": str(home / "config")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*words, "--outputs", str(lab.outputs)], env=env, cwd=home, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 90
        while "Ctrl-C" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def get(self, path: str, token: str = "secret") -> tuple[int, str]:
        """Status and body; a redirection is not followed."""

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *about: Any) -> None:
                return None

        request = urllib.request.Request(self.base + path, headers={"Authorization": f"token {token}"} if token else {})
        try:
            with urllib.request.build_opener(Stay).open(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location") or ""

    def below(self) -> list[psutil.Process]:
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]


async def _tell(address: str, messages: list[dict[str, Any]], seconds: float) -> list[str]:
    """Send messages into a kernel's channel as a visitor could, and name what came back within some seconds."""
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    line = await websocket_connect(HTTPRequest(address, headers={"Authorization": "token secret"}))
    for message in messages:
        await line.write_message(json.dumps(message))
    heard: list[str] = []
    with contextlib.suppress(asyncio.TimeoutError):
        while True:
            said = await asyncio.wait_for(line.read_message(), seconds)
            heard.append(json.loads(said)["header"]["msg_type"] if isinstance(said, str) else "binary")
    line.close()
    return heard


def _message(channel: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    header = {"msg_id": kind, "msg_type": kind, "session": "s", "username": "u", "version": "5.3", "date": ""}
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": channel,
        "buffers": [],
    }


@pytest.mark.slow
def test_who_has_the_token_reaches_the_page_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    """No token, nothing. With it: the page and the widget's own messages; no file, no list, no code in the kernel."""
    served = Served(lab, tmp_path)
    try:
        status, place = served.get("/", token="")
        assert status == 302 and place.startswith("/login")
        status, page = served.get("/")
        assert status == 200 and "serve.session" not in page and "NameView(" not in page
        kernel = re.search(r'"kernelId": "([\w-]+)"', page).group(1)
        assert served.get(f"/api/kernels/{kernel}", token="")[0] in (302, 403)
        shut = [
            "/voila/files/label.ipynb",
            "/voila/files/index.html.j2",
            "/api/kernels",
            "/api/contents/",
            "/api/sessions",
        ]
        shut += [
            "/api/terminals",
            "/voila/tree",
            "/voila/render/label.ipynb",
            "/api/contents/label.ipynb",
            "/files/label.ipynb",
        ]
        for path in shut:
            status, place = served.get(path)
            while status == 302:  # Voila sends every other address to its file door
                status, place = served.get(place)
            assert status in (403, 404), f"{path}: {status}"

        proof = tmp_path / "was-here"
        code = {"code": f"open({str(proof)!r}, 'w')", "silent": False, "user_expressions": {}, "allow_stdin": False}
        forbidden = [_message(c, "execute_request", code) for c in ("shell", "control")]
        forbidden += [_message("shell", "inspect_request", {"code": "os", "cursor_pos": 2, "detail_level": 0})]
        forbidden += [_message("control", "debug_request", {"type": "request", "command": "debugInfo", "seq": 1})]
        asking = [*forbidden, _message("shell", "kernel_info_request", {})]
        channel = f"ws://127.0.0.1:{served.port}/api/kernels/{kernel}/channels"
        heard = asyncio.run(_tell(channel, asking, seconds=4))
        assert "kernel_info_reply" in heard
        assert not {"execute_reply", "inspect_reply", "debug_reply", "execute_input"} & set(heard)
        assert not proof.exists()

        everyone = served.below()
        assert len(everyone) >= 2
        assert {c.laddr.ip for p in everyone for c in p.net_connections(kind="tcp") if c.status == "LISTEN"} == {
            "127.0.0.1"
        }
        assert not [p for p in everyone if "secret" in " ".join(p.cmdline())]
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 130
        psutil.wait_procs(everyone, timeout=5)
        assert not [p for p in everyone if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    finally:
        if served.process.poll() is None:
            for one in served.below():
                one.kill()
