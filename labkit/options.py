"""The options that say which lab, in the same words for every command, and the lab or folder that they mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.lab import Lab

outputs_option = click.option(
    "--outputs", default="outputs", metavar="DIR", show_default=True, help="Where runs and votes live."
)


def port_option(default: int) -> Callable[..., Any]:
    """`--port`, for a command that serves pages."""
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(1024, 65535),
        help="Keep it: unsaved labels wait per port.",
    )


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--recipe`, `-p` and `--outputs`, for a command that opens a lab."""
    for option in (
        outputs_option,
        click.option(
            "-p", "overrides", multiple=True, metavar="stage.key=value", help="Change one setting (repeatable)."
        ),
        click.option(
            "--recipe", default="tiny", metavar="NAME|FILE", show_default=True, help="The recipe, or a YAML file."
        ),
    ):
        command = option(command)
    return command


def open_lab(recipe: str, overrides: tuple[str, ...], outputs: str) -> Lab:
    """The lab that the options name."""
    from labkit.lab import Lab
    from labkit.recipe import parse_overrides

    return Lab.open(recipe, parse_overrides(overrides), outputs=outputs)


def folder(outputs: str) -> Path:
    """The outputs folder; raises LabError when it is not there."""
    path = Path(outputs).resolve()
    if not path.is_dir():
        raise LabError(f"There is no outputs folder {outputs}: name it with --outputs, or make runs with 'labkit run'.")
    return path
