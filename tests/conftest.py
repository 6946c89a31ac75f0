"""What every test stands on: no network, no telemetry, and the quick tests first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before any library reads them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests last, the rest in the order of the files."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
