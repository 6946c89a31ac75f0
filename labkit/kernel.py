"""Warm kernels: a notebook kernel is started once, imports torch and TRL once, and is wiped between pages.

The imports cost about nine seconds, a page itself one. A page runs through papermill, in a kernel that it shares with the
pages before it but not with a page beside it. Left out: remote kernels, other languages.
"""

from __future__ import annotations

import ast
import contextlib
import logging
import os
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import KernelManager
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.log import logger

from labkit.errors import LabError

ENGINE = "labkit"
WARM_UP = "import torch, transformers, datasets, peft, plotly.graph_objects\nfrom trl import DPOTrainer, RewardTrainer, SFTTrainer"
WIPE = "import os; os.chdir({cwd!r}); get_ipython().reset(new_session=True); import gc; gc.collect(); del gc"
SETTLE = 30.0  # seconds in which an idle kernel must answer the wipe, else it is replaced


class Kernel:
    """One IPython kernel of this interpreter, reachable from this machine alone."""

    def __init__(self, *, cwd: Path, env: Mapping[str, str], warm_up: str = WARM_UP) -> None:
        self.cwd, self.env, self.warm_up = cwd, dict(env), warm_up
        self.folder = Path(tempfile.mkdtemp(prefix="labkit-"))
        posix = os.name == "posix"  # Windows has no ipc transport in zmq
        self.km = KernelManager(
            transport="ipc" if posix else "tcp",
            ip=str(self.folder / "socket") if posix else "127.0.0.1",
            connection_file=str(self.folder / "kernel.json"),
            client_class="jupyter_client.asynchronous.AsyncKernelClient",
        )
        # The interpreter that runs labkit, whatever kernelspecs are installed, and none of the person's IPython profile.
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (self.folder / "ipython").mkdir()
        quiet = ["--HistoryManager.enabled=False", f"--ipython-dir={self.folder / 'ipython'}"]
        self.km._kernel_spec = KernelSpec(argv=[*command, *quiet], display_name="labkit", language="python")
        with open(self.folder / "log", "w") as log:  # not on the terminal, which shows the progress
            self.km.start_kernel(cwd=str(cwd), env=self.env, stdout=log, stderr=log)
        self._client = BlockingKernelClient()
        self._client.load_connection_info(self.km.get_connection_info(session=False))
        self._client.start_channels(shell=True, iopub=False, stdin=False, hb=False, control=False)
        if warm_up:
            self._client.execute(
                warm_up, silent=True
            )  # not waited for: the kernel works on it while the command goes on

    @property
    def pid(self) -> int:
        return self.km.provisioner.process.pid if self.km.provisioner else 0

    def wipe(self) -> bool:
        """Forget everything the last page left in memory; False when the kernel does not answer."""
        if not self.km.is_alive():
            return False
        asked = self._client.execute(WIPE.format(cwd=str(self.cwd)), silent=True)
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline and self.km.is_alive():
            with contextlib.suppress(queue.Empty):
                reply = self._client.get_shell_msg(timeout=1)
                if reply["parent_header"].get("msg_id") == asked:
                    return reply["content"]["status"] == "ok"
        return False

    def how_it_died(self) -> str:
        """What the exit status says, in words."""
        process = self.km.provisioner.process if self.km.provisioner else None
        code = process.poll() if process else None
        if code == -9:
            return "it was killed, most likely because the machine ran out of memory"
        return f"it was ended by signal {-code}" if code is not None and code < 0 else f"it ended with status {code}"

    def close(self) -> None:
        """End the process at once and remove its socket folder."""
        with contextlib.suppress(RuntimeError):  # it was never started, or is gone already
            self._client.stop_channels()
        if self.km.has_kernel:
            self.km.shutdown_kernel(now=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Pool:
    """As many kernels as pages can run side by side. `cold` gives every page a fresh one (tests do that)."""

    def __init__(
        self, size: int, *, cwd: Path, env: Mapping[str, str], warm_up: str = WARM_UP, cold: bool = False
    ) -> None:
        self.size, self.cold, self.closed = size, cold, False
        self._make = lambda: Kernel(cwd=cwd, env=env, warm_up=warm_up)
        self._idle: queue.LifoQueue[Kernel] = queue.LifoQueue()
        self._all: list[Kernel] = []

    def start(self) -> None:
        """Start what is missing; does not wait for the imports."""
        while len(self._all) < self.size and not self.closed:
            self._add()

    def _add(self) -> None:
        kernel = self._make()
        self._all.append(kernel)
        self._idle.put(kernel)

    @contextlib.contextmanager
    def kernel(self) -> Iterator[Kernel]:
        """A clean kernel for one page; a dead or silent one is replaced afterwards."""
        kernel = self._idle.get()
        try:
            yield kernel
        finally:
            if not self.closed:
                if not self.cold and kernel.wipe():
                    self._idle.put(kernel)
                elif not self.closed:
                    self._all.remove(kernel)
                    kernel.close()
                    self._add()

    def close(self) -> None:
        """End all kernels at once; pages that still run fail with a dead kernel."""
        self.closed = True
        for kernel in self._all:
            kernel.close()


class PageClient(PapermillNotebookClient):
    """papermill's client that knows which cell a kernel died in, and leaves that in the page."""

    def __init__(self, nb_man: Any, kernel: Kernel, **options: Any) -> None:
        super().__init__(nb_man, km=kernel.km, store_widget_state=False, **options)
        self.kernel = kernel

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        try:
            return super().execute_cell(cell, cell_index, **options)
        except DeadKernelError:
            why = f"The kernel died here: {self.kernel.how_it_died()}."
            cell.outputs.append(new_output("error", ename="DeadKernel", evalue=why, traceback=[why]))
            self.nb_man.cell_exception(cell, cell_index=cell_index)
            raise


class WarmEngine(NBClientEngine):
    """papermill's engine on a kernel that is running already."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, *, kernel: Kernel, **options: Any) -> Any:
        client = PageClient(nb_man, kernel, log=logger, timeout=None, startup_timeout=600, kernel_name=kernel_name)
        try:
            return client.execute()
        finally:
            if client.kc is not None:
                client.kc.stop_channels()


logger.addHandler(logging.NullHandler())  # what goes wrong is said once, by the command

# Registered here and not as an entry point: papermill loads entry points while it is being imported, and so in a circle.
papermill_engines.register(ENGINE, WarmEngine)


def parameter_names(source: Path) -> set[str]:
    """The names that a page's parameters cell assigns; raises LabError for a page that cannot be read or has no such cell."""
    try:
        page = nbformat.read(source, as_version=4)
        cells = [c for c in page.cells if "parameters" in c.metadata.get("tags", [])]
        tree = ast.parse(cells[0].source if cells else "")
    except (OSError, ValueError, SyntaxError, nbformat.reader.NotJSONError) as error:
        raise LabError(
            f"The page {source} cannot be read ({error}): restore it with 'git checkout {source.name}'."
        ) from error
    if not cells:
        raise LabError(
            f"The page {source.stem} has no cell tagged 'parameters': tag the one that assigns recipe and overrides."
        )
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {t.id for t in targets if isinstance(t, ast.Name)}


def execute(source: Path, target: Path, *, parameters: Mapping[str, Any], kernel: Kernel) -> Any:
    """Run one page; returns the executed notebook, which also lies at `target`, saved after every cell.

    Raises LabError for a parameter that the page does not have, and what papermill and nbclient raise.
    """
    import papermill

    own = parameter_names(source)
    if unknown := [name for name in parameters if name not in own]:
        raise LabError(
            f"The page {source.stem} has no parameter '{unknown[0]}': its parameters cell must assign {', '.join(parameters)}."
        )
    return papermill.execute_notebook(
        str(source),
        str(target),
        parameters=dict(parameters),
        engine_name=ENGINE,
        kernel_name="python3",
        language="python",
        progress_bar=False,
        kernel=kernel,
    )
