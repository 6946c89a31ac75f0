"""The set-up says one thing in several files; these tests hold the files together."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PIN = re.compile(r"([a-z0-9-]+)==(\S+)")
OWN = {"labkit"}
TOOLS = {"pip", "wheel", "setuptools"}


def pyproject(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(root: Path) -> dict[str, str]:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            match = PIN.fullmatch(line)
            assert match, f"constraints.txt: '{line}' is not name==version"
            assert match[1] not in found, f"{match[1]} is pinned twice"
            found[match[1]] = match[2]
    return found


def everything(root: Path) -> list[str]:
    """All requirements of the project with its extras, those that name the project itself resolved."""
    project = pyproject(root)
    extras = project["optional-dependencies"]
    rows = project["dependencies"] + [r for rows in extras.values() for r in rows]
    return [r for r in rows if Requirement(r).name not in OWN]


def test_constraints_pin_whole_versions_without_addresses(root: Path) -> None:
    found = pins(root)
    assert len(found) > 150
    for name, version in found.items():
        assert Version(version).local is None, f"{name}=={version} names a local build: leave the part after + out"
        assert name == canonicalize_name(name)
    text = (root / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text and " @ " not in text and "--" not in text


def test_constraints_pin_what_the_cuda_build_needs(root: Path) -> None:
    """torch on Linux from the default index brings CUDA: its parts are pinned though this machine may not have them."""
    found = pins(root)
    for name in ("triton", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "cuda-toolkit", "cuda-bindings"):
        assert name in found, f"{name} is not pinned"


def test_every_installed_distribution_is_pinned_as_installed(root: Path) -> None:
    found, seen = pins(root), 0
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if name in OWN | TOOLS:
            continue
        seen += 1
        assert name in found, f"{name} is installed and not pinned: add it to constraints.txt"
        assert Version(distribution.version).public == Version(found[name]).public, f"{name} differs from its pin"
    assert seen > 100


def test_constraints_fit_the_lower_bounds(root: Path) -> None:
    found = pins(root)
    for requirement in map(Requirement, everything(root)):
        version = found[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} does not allow the pin {version}"


def test_conda_environment_lists_what_pyproject_lists(root: Path) -> None:
    body = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    python = next(d for d in body["dependencies"] if isinstance(d, str) and d.startswith("python"))
    assert python == f"python{pyproject(root)['requires-python']}"
    listed = next(d["pip"] for d in body["dependencies"] if isinstance(d, dict))
    flags = [row for row in listed if row.startswith("-")]
    assert flags == ["-c constraints.txt", "-e ."]
    assert sorted(row for row in listed if row not in flags) == sorted(everything(root))


def test_every_import_is_declared(root: Path) -> None:
    """A package that the code imports is named in pyproject.toml, not only there because another one needs it."""
    declared = {canonicalize_name(Requirement(r).name) for r in everything(root)}
    owners = packages_distributions()
    files = [f for room in ("labkit", "widgets", "tests") for f in (root / room).rglob("*.py")]
    assert len(files) > 10
    seen = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                if top in {"labkit", "widgets", "tests"} or any(
                    (at / f"{top}.py").exists() or (at / top).is_dir() for at in (file.parent, root / "tests")
                ):
                    continue
                seen.add(top)
                found = {canonicalize_name(d) for d in owners.get(top, [])}
                assert found & declared, f"{file.relative_to(root)} imports {top}: name it in pyproject.toml"
    assert len(seen) > 10


def test_ci_runs_the_tests_and_make_explains_itself(root: Path) -> None:
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK) and "make test" in script.read_text(encoding="utf-8")
    shown = subprocess.run(["make", "help"], cwd=root, capture_output=True, text=True, check=True).stdout
    for target in ("run", "test", "lab", "check", "clean"):
        assert f"make {target} " in shown


def test_no_file_is_tied_to_a_machine(root: Path) -> None:
    """No address of a package index and no absolute path in what is installed from."""
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".ci/run"):
        text = (root / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|index-url", text), name
        assert set(re.findall(r"/([A-Za-z][\w.-]*)/", text)) <= {"usr", "bin", "dev", "postgresql"}, name
