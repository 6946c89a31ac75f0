"""The floors of the architecture, read from the imports: a file uses its own floor and those below, never one above.

Floors 0 to 2 open, label and report without torch; widgets look and never compute; a stage never imports a stage.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# A module or package of labkit and its floor. A new file must be put on one.
FLOORS = {
    **dict.fromkeys(("__init__", "errors", "records", "recipe", "surface"), 0),
    **dict.fromkeys(("runs", "show", "statistics", "feedback.__init__", "feedback.store", "feedback.database"), 1),
    **dict.fromkeys(
        ("feedback.session", "feedback.items", "feedback.letters", "feedback.book", "feedback.agreement"), 1
    ),
    **dict.fromkeys(("theme", "markup", "drawings", "canvas", "curves"), 1),
    **dict.fromkeys(
        (
            "compare",
            "arena",
            "exercises",
            "effect",
            "charts",
            "findings",
            "sections",
            "report",
            "live",
            "costs",
            "pyramid",
            "talks",
        ),
        2,
    ),
    **dict.fromkeys(("losses", "chat", "pieces", "world", "sources", "formats", "datafiles", "gguf"), 3),
    **dict.fromkeys(
        (
            "sampling",
            "training",
            "imitation",
            "constitution",
            "prompting",
            "prefixes",
            "tasks",
            "contrast",
            "tokenwise",
            "answers",
            "reading",
            "synthetic",
            "models",
            "job",
            "lab",
            "feedback",
        ),
        4,
    ),
    **dict.fromkeys(("stages", "converse", "ask", "microscope", "heldout", "retrain"), 5),
    **dict.fromkeys(
        ("schedule", "progress", "kernel", "failures", "upkeep", "pipeline", "tables", "jupyter", "bench", "page"), 6
    ),
    **dict.fromkeys(
        (
            "__main__",
            "options",
            "votes_cli",
            "background",
            "serve",
            "loop",
            "board",
        ),
        6,
    ),
}
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers"}
# `lab` reads the graph, a literal, and the graph's file asks the stages for their settings; a type is no dependency.
ALLOWED = {("lab", "stages"), ("job", "stages"), ("__init__", "lab")}
WIDGETS_MAY = {
    "records",
    "runs",
    "feedback.store",
    "feedback.session",
    "feedback.agreement",
    "compare",
    "show",
    "charts",
    "errors",
    "recipe",
    "arena",
    "theme",
}


def module(file: Path, root: Path) -> str:
    """`labkit/world/gold.py` → `world.gold`."""
    return ".".join(file.relative_to(root / "labkit").with_suffix("").parts)


def floor(name: str) -> int:
    """The floor of a module, or of the package that it stands in."""
    for key in (name, f"{name}.__init__", name.split(".")[0]):
        if key in FLOORS:
            return FLOORS[key]
    raise AssertionError(f"labkit/{name.replace('.', '/')}.py is on no floor: put it on one in tests/test_floors.py")


def imports(file: Path, *, top_only: bool) -> set[str]:
    """Dotted names that a file imports (inside `if TYPE_CHECKING` never; inside functions unless `top_only`)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return
        if isinstance(node, ast.Import):
            found.update(a.name for a in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{a.name}" for a in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def labkit_modules(names: set[str], root: Path) -> set[str]:
    """Those of labkit, as modules that exist: `labkit.runs.Run` → `runs`, `labkit.feedback` → `feedback.__init__`."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "labkit":
            continue
        for end in range(len(parts), 0, -1):
            path = root.joinpath(*parts[:end])
            if path.with_suffix(".py").is_file() and end > 1:
                found.add(".".join(parts[1:end]))
                break
            if (path / "__init__.py").is_file():
                found.add(".".join([*parts[1:end], "__init__"]))
                break
    return found


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    found = sorted((root / "labkit").rglob("*.py"))
    assert len(found) >= 25, f"only {len(found)} files of labkit were seen"
    return found


def test_no_file_imports_from_a_floor_above(files: list[Path], root: Path) -> None:
    seen = 0
    for file in files:
        own = module(file, root)
        for other in labkit_modules(imports(file, top_only=True), root):
            seen += 1
            pair = (own.split(".")[0], other.split(".")[0])
            assert floor(other) <= floor(own) or pair in ALLOWED, (
                f"{own} (floor {floor(own)}) imports {other} (floor {floor(other)})"
            )
    assert seen >= 40


def test_lower_floors_open_without_torch(files: list[Path], root: Path) -> None:
    low = [f for f in files if floor(module(f, root)) <= 2]
    assert len(low) >= 8
    for file in low:
        heavy = {name.split(".")[0] for name in imports(file, top_only=True)} & HEAVY
        assert not heavy, f"{file.name} imports {heavy} at its top: import it inside the function that needs it"


def test_settings_are_read_without_torch(root: Path) -> None:
    """A recipe is loaded by the command line and by every page: the stage files hold their settings, so none is heavy."""
    stages = sorted((root / "labkit" / "stages").glob("*.py"))
    assert len(stages) >= 7
    for file in stages:
        heavy = {name.split(".")[0] for name in imports(file, top_only=True)} & HEAVY
        assert not heavy, f"stages/{file.name} imports {heavy} at its top: import it inside the function that needs it"


def test_a_stage_never_imports_a_stage(root: Path) -> None:
    stages = [f for f in (root / "labkit" / "stages").glob("*.py") if f.name != "__init__.py"]
    assert len(stages) >= 6
    for file in stages:
        others = {m for m in labkit_modules(imports(file, top_only=False), root) if m.startswith("stages.")}
        assert others <= {"stages.__init__"}, f"stages/{file.name} imports {others}"


def test_labkit_never_imports_widgets_and_widgets_never_torch(files: list[Path], root: Path) -> None:
    for file in files:
        assert not {n for n in imports(file, top_only=False) if n.split(".")[0] == "widgets"}, (
            f"{file.name} imports widgets"
        )
    for file in (root / "widgets").rglob("*.py"):
        names = imports(file, top_only=False)
        assert not {n.split(".")[0] for n in names} & HEAVY, f"widgets/{file.name} imports torch or the like"
        beyond = labkit_modules(names, root) - WIDGETS_MAY - {"__init__"}
        assert not beyond, f"widgets/{file.name} imports labkit's {beyond}"


def test_import_labkit_is_quick_and_light() -> None:
    """At most 0.2 s of its own (best of three, the interpreter's start not counted), and no torch."""
    code = (
        "import sys, time; t = time.perf_counter(); import labkit; s = time.perf_counter() - t\n"
        "print(s, sum(m in sys.modules for m in ('torch', 'transformers', 'numpy', 'pydantic')))"
    )
    rows = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert min(float(seconds) for seconds, _ in rows) <= 0.2
    assert {heavy for _, heavy in rows} == {"0"}


def test_opening_a_lab_is_light(tmp_path: Path) -> None:
    """Reading a recipe, planning and listing what is finished: what a second `labkit run` does, without torch."""
    code = (
        "import sys, labkit; lab = labkit.open('smoke', outputs=sys.argv[1]); lab.finished(); import labkit.pipeline\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'papermill') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
