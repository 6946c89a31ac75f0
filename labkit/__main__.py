"""The command line. Heavy imports stand inside the commands, so that help comes at once."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from labkit.errors import LabError
from labkit.options import folder, open_lab, outputs_option, port_option, recipe_options
from labkit.votes_cli import votes

AGAIN = "stopped; the same command goes on: {}"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="labkit")
def cli(debug: bool) -> None:
    """Take a language model through every rung of alignment, and measure what each rung bought."""


@cli.command()
@click.argument("stages", nargs=-1, metavar="[STAGE ...]")
@recipe_options
@click.option("--fresh", is_flag=True, help="Make the runs that the stages use again. Votes are never touched.")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Cores to use at once.  [default: all]")
def run(
    stages: tuple[str, ...], recipe: str, overrides: tuple[str, ...], outputs: str, fresh: bool, jobs: int | None
) -> None:
    """Run the pages that make STAGE ... and what they need; without a STAGE the whole ladder.

    A STAGE is a run of the ladder such as pretrain, sft, preferences, reward, ppo, dpo or compare (`labkit stages` lists all), or
    `report`, which joins what is finished. What is finished is not made again, so the same command goes on after a stop.
    Every command takes --debug, which shows the traceback of an error.

    \b
    labkit run                                   the recipe tiny, every page, the report
    labkit run ppo report -p ppo.kl=0            what PPO does without its leash, beside the recipe's own runs
    """
    from labkit import pipeline, tables

    lab = open_lab(recipe, overrides, outputs)
    outcome = pipeline.run(lab, stages, jobs=jobs or 0, fresh=fresh, recipe=_told(recipe), again=_command())
    tables.show_outcome(lab, outcome)


@cli.command()
@recipe_options
def report(recipe: str, overrides: tuple[str, ...], outputs: str) -> None:
    """Write report.html and ladder.json from the runs that are finished."""
    from labkit import pipeline
    from labkit.progress import near

    click.echo(f"report: {near(pipeline.write_report(open_lab(recipe, overrides, outputs)))}")


@cli.command("stages")
def list_stages() -> None:
    """List the runs of the ladder, each with its page and what it is made from."""
    from labkit import tables

    tables.show_graph()


@cli.group(invoke_without_command=True)
@outputs_option
@click.pass_context
def runs(context: click.Context, outputs: str) -> None:
    """List the finished runs; `note`, `pin` and `unpin` mark one (by its id or the start of it)."""
    context.obj = outputs
    if context.invoked_subcommand is None:
        from labkit import tables

        tables.show_runs(folder(outputs))


@runs.command()
@click.argument("run")
@click.argument("text")
@click.pass_obj
def note(outputs: str, run: str, text: str) -> None:
    """Attach TEXT to RUN; an empty text takes it away."""
    _mark(outputs, run, text=text)


@runs.command()
@click.argument("run")
@click.pass_obj
def pin(outputs: str, run: str) -> None:
    """Keep the weights of RUN whatever `labkit clean` is told."""
    _mark(outputs, run, pinned=True)


@runs.command()
@click.argument("run")
@click.pass_obj
def unpin(outputs: str, run: str) -> None:
    """Let `labkit clean` take the weights of RUN again."""
    _mark(outputs, run, pinned=False)


@cli.command()
@click.option("--recipe", metavar="NAME", help="Only the runs of this recipe.  [default: all]")
@outputs_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def clean(recipe: str | None, outputs: str, yes: bool) -> None:
    """Remove the weights of runs that are not pinned; answers, metrics and votes stay."""
    from labkit import runs as every
    from labkit import upkeep

    where = folder(outputs)
    with upkeep.sole(where, lambda text: click.echo(text, err=True)):
        found = upkeep.weights(where, recipe)
        if not found:
            click.echo("No weights to remove.")
            return
        if not yes:
            click.confirm(f"Remove the weights of {len(found)} runs ({', '.join(r.id for r in found)})?", abort=True)
        freed = sum(every.clean(r) for r in found)
        click.echo(f"{len(found)} runs cleaned, {freed / 1e6:.0f} MB freed.")


@cli.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@outputs_option
def compare(first: str, second: str, outputs: str) -> None:
    """Compare two finished runs, by id or the start of it, on the validation prompts that both have answered."""
    from labkit import tables

    where = folder(outputs)
    tables.show_comparison(tables.pick(where, first), tables.pick(where, second))


@cli.command()
@port_option(8888)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def lab(port: int, no_browser: bool) -> None:
    """Open JupyterLab on the notebooks, reachable from this machine alone."""
    from labkit import jupyter

    sys.exit(jupyter.serve(port, browser=not no_browser))


@cli.command()
@recipe_options
@port_option(8866)
@click.option(
    "--mode", type=click.Choice(["pair", "ranking", "thumb"]), default="pair", show_default=True, help="What is asked."
)
def label(recipe: str, overrides: tuple[str, ...], outputs: str, port: int, mode: str) -> None:
    """Serve the labeller to people without JupyterLab: on this machine, by an address with a token."""
    from labkit import serve

    serve.label(open_lab(recipe, overrides, outputs), port, mode)


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure speed and memory: the whole ladder, sampling, PPO."""
    from labkit import bench as benches

    benches.main(list(arguments))


cli.add_command(votes)


def main() -> None:
    """Run the command; LabError is a sentence and exit code 2, Ctrl-C is 130."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]  # it may stand anywhere
    try:
        code = cli.main(arguments, prog_name="labkit", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, click.Abort):
        click.echo(AGAIN.format(_command()), err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LabError as error:
        if debug:
            raise
        click.echo(str(error), err=True)
        sys.exit(2)
    except Exception as error:
        if debug:
            raise
        what = str(error).splitlines()[0] if str(error) else "no message"
        click.echo(
            f"This should not have happened: {type(error).__name__}: {what}. Run {_command()} --debug to see where.",
            err=True,
        )
        sys.exit(2)


def _command() -> str:
    return shlex.join(["labkit", *(a for a in sys.argv[1:] if a != "--debug")])


def _told(recipe: str) -> str:
    """The recipe as the pages are told it, who run elsewhere: a file by its whole path."""
    from pathlib import Path

    return str(Path(recipe).resolve()) if recipe.endswith((".yaml", ".yml")) else recipe


def _mark(outputs: str, run: str, **mark: Any) -> None:
    from labkit import runs as every
    from labkit import tables

    found = tables.pick(folder(outputs), run)
    every.note(found, **mark)
    now = every.marks(found)
    click.echo(f"{found.id}: {'pinned' if now['pinned'] else 'not pinned'}{', ' + now['note'] if now['note'] else ''}")


if __name__ == "__main__":
    main()
