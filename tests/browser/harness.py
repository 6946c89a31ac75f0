"""A real JupyterLab in a real Chromium: watched tabs, and a notebook whose kernel can be asked, restarted or killed.

Nothing here reaches another machine: the browser resolves no name but 127.0.0.1, and every request that would leave is written
down, so that a test can say that there was none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from browser.servers import ROOT, Server

SHOTS = ROOT / "outputs" / "screenshots"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--font-render-hinting=none"),
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
NOISE = ("Could not restore the debugger state",)  # JupyterLab itself, at every restart of a kernel
INSIDE = ("data:", "blob:", "about:", "chrome:", "devtools:")
PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
HIDDEN = """() => {
  const found = [];
  for (let n = document.querySelector('.lab-view'); n && n.nodeType === 1; n = n.parentElement) {
    const style = getComputedStyle(n), box = n.getBoundingClientRect();
    if (style.display === 'none' || style.visibility !== 'visible' || style.contentVisibility !== 'visible' || !box.height)
      found.push(`${n.className} ${style.display} ${style.visibility} ${style.contentVisibility} ${box.width}x${box.height}`);
  }
  const tabs = [...jupyterapp.shell.widgets('main')].map((w) => `${w.title.label} ${w.isVisible}`);
  return { found, tabs, now: jupyterapp.shell.currentWidget?.title.label, mode: jupyterapp.shell.mode };
}"""  # what a view that cannot be seen says of itself and of what holds it
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext"


class Tab:
    """One page of the browser, watched from its birth: requests that leave, console errors, dialogs."""

    def __init__(self, page: Any, *, inside: Sequence[str], theme: str = "light") -> None:
        self.page, self.theme = page, theme
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self._inside = (*INSIDE, *inside, *(i.replace("http:", "ws:") for i in inside))
        page.set_default_timeout(30_000)  # a busy machine is no failure
        self._heard = {
            "request": lambda request: self.requests.append(request.url),
            "websocket": lambda opened: self.requests.append(opened.url),
            "console": self._console,
            "pageerror": lambda error: self.errors.append(f"uncaught: {error}"),
            "dialog": self._dialog,
        }
        for event, heard in self._heard.items():
            page.on(event, heard)

    @property
    def offsite(self) -> list[str]:
        """Requests that went anywhere but to the tab's own server; must be empty."""
        return [url for url in self.requests if not url.startswith(self._inside)]

    def wait(self, condition: str, seconds: float = 30) -> Any:
        """Return once a JavaScript condition holds in the page; its value."""
        return self.page.wait_for_function(condition, timeout=seconds * 1000).json_value()

    def awaited(self, function: str, argument: Any = None, seconds: float = 120) -> Any:
        """What an async function of the page comes to; raises where it never does, as Playwright alone would wait for ever."""
        late = (
            f"new Promise((_, no) => setTimeout(() => no(new Error('no answer within {seconds} s')), {seconds * 1000}))"
        )
        return self.page.evaluate(f"it => Promise.race([({function})(it), {late}])", argument)

    def shot(self, name: str, selector: str = ".lab-view") -> Path:
        """A picture of the first such part in outputs/screenshots/NAME-THEME.png."""
        file = SHOTS / f"{name}-{self.theme}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        self.page.locator(selector).first.screenshot(path=file, animations="disabled")
        return file

    def axe(self, selector: str = ".lab-view") -> list[str]:
        """What axe-core calls serious or critical inside `selector`, one line each; raises if there is no such part."""
        from axe_playwright_python.base import AXE_SCRIPT

        assert self.page.locator(selector).count(), f"nothing in the page is {selector}"
        if not self.page.evaluate("() => Boolean(window.axe)"):
            self.page.evaluate(AXE_SCRIPT)
        # JupyterLab's body has no height, and axe takes everything in it for hidden: contrast would go unchecked.
        self.page.evaluate("() => { document.body.style.minHeight = '100vh'; }")
        found = self.page.evaluate("s => axe.run(s, {resultTypes: ['violations']}).then(r => r.violations)", selector)
        bad = [v for v in found if v["impact"] in ("serious", "critical")]
        return [
            f"{v['id']} ({v['impact']}) at {n['target'][0]}: {n['html'][:160]} {n.get('failureSummary', '')}"
            for v in bad
            for n in v["nodes"]
        ]

    def check(self) -> None:
        """What must hold after every journey: nothing left the machine, no dialog opened."""
        assert not self.offsite, f"requests left the machine: {self.offsite}"
        assert not self.dialogs, f"dialogs opened: {self.dialogs}"

    def _console(self, message: Any) -> None:
        if message.type == "error" and not message.text.startswith(NOISE):
            place = (message.location or {}).get("url", "")
            self.errors.append(f"{message.text} ({place})" if place else message.text)

    def _dialog(self, dialog: Any) -> None:
        if dialog.type == "beforeunload":  # JupyterLab asks whether unsaved changes may go
            dialog.accept()
        else:
            self.dialogs.append(dialog.message)
            dialog.dismiss()


class Notebook(Tab):
    """A notebook open in JupyterLab, with its kernel."""

    def __init__(self, page: Any, server: Server, name: str, theme: str) -> None:
        super().__init__(page, inside=[server.base], theme=theme)
        self.server, self.name, self.file = server, name, f"{name}.ipynb"
        self._reloaded = False

    def open(self, seconds: float = 60) -> None:
        """Show the notebook in the page, loading JupyterLab where it is not there yet; return when its kernel is idle."""
        if self.page.url.startswith(self.server.base):
            self.awaited("async path => { await jupyterapp.commands.execute('docmanager:open', {path}); }", self.file)
        else:
            place = f"/lab/workspaces/{self.name}/tree/{self.file}?reset&token={self.server.token}"
            self.page.goto(self.server.base + place, wait_until="domcontentloaded")
        self._settle(seconds)
        self.dress(self.theme)

    def front(self) -> None:
        """Bring the notebook to the front and return when its first view is to be seen; raises with what hides it."""
        self.wait("() => document.querySelector('.lab-view')")
        self.page.evaluate(
            "path => { for (const w of jupyterapp.shell.widgets('main'))"
            " if (w.context?.path === path) jupyterapp.shell.activateById(w.id); }",
            self.file,
        )
        try:
            self.wait("() => document.querySelector('.lab-view').checkVisibility()")
        except Exception as error:
            raise AssertionError(f"the view stays hidden: {self.page.evaluate(HIDDEN)}") from error

    def dress(self, theme: str) -> None:
        """Put JupyterLab into the light or the dark theme."""
        self.theme, name = theme, f"JupyterLab {theme.title()}"
        self.awaited("async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", name)
        self.wait(f"() => document.body.dataset.jpThemeName === '{name}'")

    def look(self, name: str, selector: str = ".lab-view") -> None:
        """A picture in dark and one in light, in which it stays; raises where axe finds something serious in either."""
        for theme in ("dark", "light"):
            self.dress(theme)
            found = self.axe(selector)
            assert not found, f"{theme}: " + "\n".join(found)
            self.shot(name, selector)

    def _settle(self, seconds: float = 60) -> None:
        self.wait("() => window.jupyterapp && window.jupyterapp.restored", seconds)
        self.awaited("async () => { await jupyterapp.restored; jupyterapp.shell.collapseLeft(); }")
        self.wait(f"() => jupyterapp.shell.currentWidget?.context?.path === '{self.file}'", seconds)
        self.page.wait_for_selector(f"{PANEL} .jp-Notebook .jp-Cell", timeout=seconds * 1000)
        self.idle(seconds)

    def idle(self, seconds: float = 60) -> None:
        """Return when the kernel is connected and has nothing to do."""
        self.wait(
            f"() => {{ const k = {KERNEL}.session?.kernel;"
            " return k && k.status === 'idle' && k.connectionStatus === 'connected'; }",
            seconds,
        )
        self.pid = int(self.eval("__import__('os').getpid()"))

    def command(self, name: str) -> None:
        """Carry out one of JupyterLab's commands and wait for it."""
        self.awaited("async name => { await jupyterapp.commands.execute(name); }", name)

    def run_all(self) -> None:
        """Run every cell; raises AssertionError with what a failed cell said."""
        self.command("notebook:run-all-cells")
        self.idle(120)
        failed = self.page.evaluate(
            "() => jupyterapp.shell.currentWidget.content.model.sharedModel.cells.flatMap((cell, i) =>"
            " (cell.toJSON().outputs || []).filter(o => o.output_type === 'error')"
            " .map(o => `cell ${i}: ${o.ename}: ${o.evalue}\\n${o.traceback.join('\\n')}`))"
        )
        assert not failed, "\n".join(failed)

    def eval(self, expression: str) -> str:
        """The repr of an expression in the kernel; raises AssertionError when it fails. No cell is touched."""
        reply = self.awaited(
            "async e => { const f = " + KERNEL + ".session.kernel.requestExecute("
            "{code: '', silent: true, store_history: false, user_expressions: {it: e}});"
            " return (await f.done).content.user_expressions.it; }",
            expression,
        )
        assert reply["status"] == "ok", f"{expression}: {reply.get('ename')}: {reply.get('evalue')}"
        return reply["data"]["text/plain"]

    def run(self, code: str) -> None:
        """Run code in the kernel without a cell; raises AssertionError when it fails."""
        reply = self.awaited(
            f"async code => (await {KERNEL}.session.kernel.requestExecute({{code, store_history: false}}).done).content",
            code,
        )
        assert reply["status"] == "ok", f"{reply.get('ename')}: {reply.get('evalue')}"

    def save(self) -> None:
        """Save the notebook, so that a reload finds its outputs."""
        self.command("docmanager:save")

    def reload(self, *, save: bool = True) -> None:
        """Load the page anew, as F5 does; the kernel lives on."""
        if save:
            self.save()
        self._reloaded = True
        self.page.reload(wait_until="domcontentloaded")
        self._settle()

    def restart(self) -> None:
        """Restart the kernel through JupyterLab; cells are not run again."""
        self.awaited(f"async () => {{ await {KERNEL}.session.kernel.restart(); }}")
        self.idle()

    def kill(self) -> None:
        """SIGKILL to the kernel's process. JupyterLab starts another by itself, within seconds: see `revive`."""
        os.kill(self.pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(self.pid)] if psutil.pid_exists(self.pid) else [], timeout=5)

    def revive(self) -> None:
        """After `kill`: wait for the kernel that takes its place and put JupyterLab's note about it away."""
        self.page.locator(".jp-Dialog .jp-mod-accept").click(timeout=20_000)
        self.idle()

    def leave(self) -> bool:
        """Put the notebook away, its letters in the browser too; whether the page is as good as new.

        One that was reloaded is not: JupyterLab may open its notebook once more, seconds later, in front of another.
        """
        for event, heard in self._heard.items():
            self.page.remove_listener(event, heard)
        try:
            return (
                self.page.evaluate(
                    "() => { for (const w of [...jupyterapp.shell.widgets('main')]) w.dispose();"
                    " localStorage.clear(); return !document.querySelector('.jp-Dialog'); }"
                )
                and not self._reloaded
            )
        except Exception:  # the page has crashed or was closed: the next journey gets another
            return False
