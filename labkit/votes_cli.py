"""`labkit votes`: who judged what, and the way out and in for judgements. Heavy imports stand inside the commands."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labkit import options
from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.feedback.store import VoteStore
    from labkit.lab import Lab
    from labkit.records import Vote

FORMS = ("preference", "unpaired", "ranking", "demonstrations", "comparator", "votes")
SOURCES = ("person", "simulated", "model", "import")
SHOWN = 10  # damaged rows that are named
LEFT_OUT = {
    "preference": "a tie, a skip or a thumb prefers nothing",
    "unpaired": "a tie or a skip calls nothing good or bad",
    "ranking": "a thumb or a skip ranks nothing",
    "demonstrations": "nobody wrote a better answer there",
    "comparator": "a thumb or a skip compares nothing",
}


@click.group()
def votes() -> None:
    """List the votes, write them for other programs, read them back, and erase a rater's."""


@votes.command("list")
@options.recipe_options
def list_votes(recipe: str, overrides: tuple[str, ...], outputs: str) -> None:
    """Show who judged how many, by mode, source and run."""
    store = _lab(recipe, overrides, outputs).votes
    found, stored = store.votes(), len(store.history())
    if not stored:
        raise LabError(f"There are no votes in {store.address}: 'labkit run preferences' makes the first.")
    click.echo(_table(found))
    undone = (stored - len(found)) // 2
    click.echo(f"{_n(len(found), 'vote')} in {store.address}{f', {undone:,} more taken back' if undone else ''}")


@votes.command()
@click.argument("file", metavar="FILE|DIR")
@click.option("--as", "form", type=click.Choice(FORMS), default="votes", show_default=True, help="What a row says.")
@click.option(
    "--format", "format_", type=click.Choice(("jsonl", "parquet", "datasets")), help="[default: by the name of FILE]"
)
@click.option("--rater", metavar="NAME", help="Only this rater's.")
@click.option("--run", metavar="ID", help="Only those on this run.")
@click.option("--source", type=click.Choice(SOURCES), help="Only those of people, programs, models or files.")
@click.option("--split", type=click.Choice(("train", "validation", "test")), help="Only those on these prompts.")
@click.option("--anonymous", is_flag=True, help="A pseudonym for every rater's name, always the same one here.")
@options.recipe_options
def export(
    file: str, form: str, format_: str | None, anonymous: bool, run: str | None,
    recipe: str, overrides: tuple[str, ...], outputs: str, **where: str | None,
) -> None:  # fmt: skip
    """Write votes to FILE.jsonl, FILE.parquet, a datasets folder DIR, or LLM Comparator's FILE.json.

    preference, unpaired and demonstrations are TRL's columns; what stands beside them makes `votes import` of the file give
    back the same votes. Only `votes` has skips and what was taken back. --anonymous leaves times and everything that was
    written as they are.
    """
    from labkit.feedback import exports

    lab = _lab(recipe, overrides, outputs)
    exports.format_of(Path(file).expanduser(), form, format_ or "")
    found = exports.chosen(lab.votes, form, run=_stored_run(lab.votes, run), **where)
    if anonymous:
        found = exports.anonymous(found, exports.pseudonym_key(lab.outputs))
    made = exports.write(found, file, form, format_ or "")
    click.echo(f"{made.path}: {_n(made.rows, 'row')} from {_n(made.votes, 'vote')} ({form}, {made.format})")
    if made.left_out:
        click.echo(f"{_n(made.left_out, 'vote')} left out: {LEFT_OUT[form]}.")


@votes.command("import")
@click.argument("file")
@click.option("--rater", default="", metavar="NAME", help="Who judged, where a row does not say.  [default: import]")
@click.option("--run", default="", metavar="ID", help="The preferences run that all of them are for: then they train.")
@click.option("--skip-bad", is_flag=True, help="Store the rest when rows are damaged.")
@options.recipe_options
def import_votes(
    file: str, rater: str, run: str, skip_bad: bool, recipe: str, overrides: tuple[str, ...], outputs: str
) -> None:
    """Store the votes of FILE: what `votes export` wrote, TRL's and LLM Comparator's columns, or CSV.

    A row from elsewhere needs prompt, chosen and rejected; or prompt, completion and label; or prompt, answers and ranks. The
    same file twice is stored once. With a damaged row nothing is stored, but for --skip-bad.
    """
    from labkit import tables
    from labkit.feedback import imports
    from labkit.records import SPLITS

    lab = options.open_lab(recipe, overrides, outputs)
    if run:
        chosen = tables.pick(lab.outputs, run)
        if chosen.manifest["stage"] != "preferences":
            raise LabError(f"{chosen.id} is a run of {chosen.manifest['stage']}: votes are for a run of preferences.")
        run = chosen.id
    found = imports.read(
        file,
        rater=rater,
        run=run,
        known=lambda: {imports.asked(p.messages): p for split in SPLITS for p in lab.source.prompts(split)},
        stored=_Stored(lab.votes),
    )
    for place, why in found.damaged[:SHOWN]:
        click.echo(f"{place}: {why}", err=True)
    if len(found.damaged) > SHOWN:
        click.echo(f"and {len(found.damaged) - SHOWN:,} more", err=True)
    if found.damaged and not (skip_bad and found.votes):
        rest = (
            "not one is left to keep" if skip_bad or not found.votes else "mend them, or keep the rest with --skip-bad"
        )
        raise LabError(f"Damaged: {len(found.damaged):,} of {_n(found.rows, 'row')}. Nothing was stored: {rest}.")
    new = lab.votes.add(*found.votes)
    known = len(found.votes) - new
    said = [f"{_n(found.rows, 'row')}, {_n(len(found.votes), 'vote')}: {new:,} new"]
    said += [f"{known:,} there already"] if known else []
    said += [f"{_n(len(found.damaged), 'damaged row')} left out"] if found.damaged else []
    click.echo(", ".join(said))


@votes.command()
@click.option("--rater", required=True, metavar="NAME", help="Whose votes.")
@click.option("--runs", is_flag=True, help="Take them out of finished runs as well.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.recipe_options
def erase(rater: str, runs: bool, yes: bool, recipe: str, overrides: tuple[str, ...], outputs: str) -> None:
    """Delete a rater's votes from the store for good, so that its files no longer hold them.

    Finished runs keep a copy of the votes that they used: they are listed, and with --runs taken out of there too. What was
    made of them stays: trained models, executed pages, reports, exports, backups.
    """
    from labkit import upkeep
    from labkit.feedback import erasing

    lab = _lab(recipe, overrides, outputs)
    with upkeep.sole(lab.outputs, lambda text: click.echo(text, err=True)):
        there, copies = len(lab.votes.history(rater=rater)), erasing.copies(lab.outputs, rater)
        if not there and not copies:
            near = difflib.get_close_matches(rater, lab.votes.raters(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "'labkit votes list' shows who has."
            raise LabError(f"{rater!r} has no votes here: {hint}")
        also = f" and from {_n(len(copies), 'run')}" if runs and copies else ""
        if not yes:
            click.confirm(
                f"Erase {_n(there, 'vote')} of {rater!r} from {lab.votes.address}{also} for good?", abort=True
            )
        click.echo(f"{_n(lab.votes.erase(rater), 'vote')} of {rater!r} erased from {lab.votes.address}.")
        for run, n in copies:
            if runs:
                click.echo(f"{erasing.forget(run, rater):,} taken out of {run.path / erasing.VOTES}")
            else:
                click.echo(f"{_n(n, 'vote')} left in {run.path / erasing.VOTES}")
        if copies and not runs:
            click.echo("The same command with --runs takes them out of there too.")
        click.echo("Models trained on them, executed pages, reports and exports made before stay as they are.")


def _n(count: int, what: str) -> str:
    """ "1 vote", "1,200 votes"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class _Stored:
    """The ids in the store, read when the first undo asks for one."""

    def __init__(self, store: VoteStore) -> None:
        self._store = store
        self._ids: set[str] | None = None

    def __contains__(self, vote_id: object) -> bool:
        if self._ids is None:
            self._ids = {v.id for v in self._store.history() if not v.retracts}
        return vote_id in self._ids


def _lab(recipe: str, overrides: tuple[str, ...], outputs: str) -> Lab:
    """The lab of an outputs folder that is there: looking at votes makes none."""
    options.folder(outputs)
    return options.open_lab(recipe, overrides, outputs)


def _stored_run(store: VoteStore, name: str | None) -> str | None:
    """The run of stored votes whose id is `name` or alone starts with it."""
    if name is None:
        return None
    known = sorted({v.run for v in store.votes()})
    found = [run for run in known if run == name] or [run for run in known if run.startswith(name)]
    if len(found) == 1:
        return found[0]
    said = (
        f"could be any of {', '.join(found)}" if found else f"has no votes here, only {', '.join(filter(None, known))}"
    )
    raise LabError(f"'{name}' {said}: write the id of one run.")


def _table(found: list[Vote]) -> str:
    """A line for each rater's votes in one mode on one run."""
    from statistics import median

    from labkit.markup import table

    groups: dict[tuple[str, ...], list[Vote]] = {}
    for vote in found:
        groups.setdefault((vote.rater, vote.source, vote.mode, vote.run), []).append(vote)
    rows = []
    for key, given in sorted(groups.items()):
        timed = [v.seconds for v in given if v.seconds > 0]
        names = ("".join(c if c.isprintable() else "?" for c in text) for text in key)  # a terminal obeys some letters
        row: dict[str, Any] = dict(zip(("rater", "source", "mode", "run"), names, strict=True))
        row |= {
            "votes": len(given),
            "ties": sum(len(set(v.ranks)) == 1 < len(v.ranks) and v.flag != "skip" for v in given),
        }
        row |= {"skips": sum(v.flag == "skip" for v in given), "edits": sum(bool(v.edit) for v in given)}
        row |= {
            "seconds": round(median(timed), 1) if timed else "",
            "last": max(v.time for v in given)[:16].replace("T", " "),
        }
        rows.append(row)
    return table(rows).text
