"""What a person waits for before anything happens: the help text, and a page that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from labkit.bench import Turns, seconds, take_turns

EMPTY = 'recipe = "tiny"\noverrides = {}\noutputs = "outputs"'


def imports(rounds: int) -> Turns:
    """The help against the imports that it must not make."""
    turns = Turns("import", "labkit --help", "python -c 'import torch, transformers'", "s")

    def run(*code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, *code], capture_output=True, check=True))

    return take_turns(
        turns, lambda: run("-m", "labkit", "--help"), lambda: run("-c", "import torch, transformers"), rounds=rounds
    )


def page(rounds: int) -> Turns:
    """An empty page in a kernel that is warm, wiped afterwards, against the same page in a kernel of its own."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    from labkit import kernel

    turns = Turns("page", "empty page, warm kernel", "empty page, cold kernel with the lab's imports", "s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = [new_code_cell(EMPTY, metadata={"tags": ["parameters"]}), new_code_cell("print(recipe)")]
        nbformat.write(new_notebook(cells=cells), folder / "empty.ipynb")
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}
        warm = kernel.Pool(1, cwd=folder, env=env)
        warm.start()

        def run(pool: kernel.Pool) -> float:
            def once() -> None:
                with pool.kernel() as one:
                    kernel.execute(
                        folder / "empty.ipynb", folder / "done.ipynb", parameters={"recipe": "smoke"}, kernel=one
                    )

            return seconds(once)

        def cold() -> float:
            def once() -> None:
                pool = kernel.Pool(1, cwd=folder, env=env)
                pool.start()
                run(pool)
                pool.close()

            return seconds(once)

        try:
            return take_turns(turns, lambda: run(warm), cold, rounds=rounds)
        finally:
            warm.close()
