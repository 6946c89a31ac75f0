"""labkit: take a language model through every rung of alignment, and measure what each rung bought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.lab import Lab

__version__ = "0.1.0"


def open(recipe: str = "tiny", overrides: dict[str, Any] | None = None, *, outputs: str = "outputs") -> Lab:
    """Open a lab: `lab = labkit.open("tiny", {"dpo.beta": 0.3})`, then `lab.run("dpo")`."""
    from labkit.lab import Lab

    return Lab.open(recipe, overrides, outputs=outputs)
