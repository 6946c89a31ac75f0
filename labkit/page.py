"""What the notebooks call besides stages and charts, so that their cells stay short: opening a page, joining its runs.

Pages show the validation split; the test split is for the report alone.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from labkit import compare, runs, show, stages
from labkit.errors import LabError
from labkit.lab import Lab, Plan
from labkit.live import Live
from labkit.markup import Html
from labkit.records import Answer, Pair, Vote
from labkit.runs import Run

SPLIT = "validation"
QUIET = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}


def open(page: str, recipe: str, overrides: dict[str, Any], outputs: str) -> Lab:  # noqa: A001
    """The lab behind a page such as `02_sft`, with live progress; says what changed since the page's runs were made.

    Raises LabError when a run that the page builds on is missing, before anything else is computed.
    """
    import plotly.io

    _quiet()
    plotly.io.renderers.default = "plotly_mimetype"  # no copy of plotly in every executed page
    plotly.io.renderers["plotly_mimetype"].config = {"displayModeBar": False}
    lab = Lab.open(recipe, overrides, outputs=outputs)
    lab.listeners.append(Live(attached=show.attached()))
    own = [n for n, node in stages.GRAPH.items() if node.page == page and stages.asked_for(n, lab.recipe)]
    _need_parents(lab, own)
    for notice in notices(lab, own):
        _display(notice)
    return lab


def _quiet() -> None:
    """Progress bars and notes of the libraries would stand in the page as error output; the lab has a line of its own."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|torch|datasets)(\..*)?")
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    if "transformers" in sys.modules:
        sys.modules["transformers"].logging.set_verbosity_error()


def _display(thing: Html) -> None:
    from IPython.display import display

    display(thing)


def _need_parents(lab: Lab, own: list[str]) -> None:
    for name in own:
        if stages.GRAPH[name].optional or lab.find(name):
            continue
        for parent, plan in lab.plan(name).parents.items():
            if parent not in own and not runs.find(lab.folder, plan.id):
                where = stages.GRAPH[parent].page
                raise LabError(
                    f"This page builds on {plan.id}, which is not there yet: run page {where} first, or 'labkit run {name}'."
                )


def notices(lab: Lab, names: Iterable[str]) -> Iterator[Html]:
    """A notice for each of the runs that exists, but was made from other choices than the recipe has now."""
    for name in names:
        plan = lab.plan(name)
        older = None if runs.find(lab.folder, plan.id) else newest(lab, name)
        if older:
            yield show.changed(older.id, plan.id, differs(lab, plan, older))


def newest(lab: Lab, name: str) -> Run | None:
    """The run of that name that was finished last, whatever it was made from."""
    found = [Run(file.parent) for file in lab.folder.glob(f"{name}-??????/{runs.MANIFEST}")]
    return max(found, key=lambda run: run.manifest["finished"], default=None)


def differs(lab: Lab, plan: Plan, run: Run) -> list[str]:
    """What the recipe asks for now that the run was not made from, a few words each: `dpo.beta 0.3 → 0.1`."""
    was = yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))
    stage = stages.GRAPH[plan.name].stage
    said = [] if was["seed"] == lab.recipe.seed else [f"seed {was['seed']} → {lab.recipe.seed}"]
    for section in ("model", "data", "answers", stage):
        now = lab.recipe[section].model_dump(mode="json")
        old = was.get(section, {})
        said += [f"{section}.{key} {old.get(key)} → {value}" for key, value in now.items() if old.get(key) != value]
    parents = run.manifest["parents"]
    said += [f"{n} {parents.get(n, 'absent')} → {p.id}" for n, p in plan.parents.items() if parents.get(n) != p.id]
    votes = len(plan.votes) if plan.votes is not None else None
    if votes != run.manifest["votes"]:
        said.append(f"votes {run.manifest['votes']} → {votes}")
    return said[:4] or ["the program or its data"]


def judge(lab: Lab) -> Run | None:
    """The reward model that compares in place of gold, trained now if need be; None where the recipe asks for none."""
    return lab.run("judge") if stages.asked_for("judge", lab.recipe) else None


def join(lab: Lab, *names: str) -> compare.Comparison:
    """These runs (without names all that are finished) on the validation prompts.

    By gold, or a judge where there is no gold; before there is a judge only by what needs none. Never by the proxy that
    PPO climbed. Where nothing is finished the comparison is empty.
    """
    found = lab.finished()
    chosen = [run for name, run in found.items() if not names or name in names]
    if not compare.answered(chosen, SPLIT):
        return compare.Comparison(split=SPLIT, score="", reference="sft", prompts=(), answers={}, runs={})
    return compare.join(chosen, split=SPLIT, score=None, seed=lab.recipe.seed, samples=lab.recipe["answers"].bootstrap)


def ladder(c: compare.Comparison) -> Html:
    """The comparison as a table; held-out web text is left out, since it is measured on the test split."""
    if not c.authors:
        return Html("<p>No model has answered yet.</p>", "No model has answered yet.")
    return show.ladder([{**row, "web_nll": None} for row in c.rows()], score=c.score)


def tokens(lab: Lab, *records: str | Answer | Pair, last: bool = False) -> Html:
    """Texts, answers and pairs as the tokens that the models read, those that count in the loss coloured.

    All of a text counts (pretraining), of an answer only the answer, with `last` only its last token (a reward is read there).
    """
    from labkit import chat

    tokenizer = _tokenizer(lab)
    shown = []
    for record in records:
        if isinstance(record, str):
            ids = chat.text_ids(tokenizer, record)
            shown.append(show.tokens(tokenizer.convert_ids_to_tokens(ids), [True] * len(ids)))
            continue
        sides = (
            {"chosen": record.chosen, "rejected": record.rejected} if isinstance(record, Pair) else {"": record.text}
        )
        for title, text in sides.items():
            asked, given = chat.answer_ids(tokenizer, record.prompt, text)
            mask = (
                [False] * (len(asked) + len(given) - 1) + [True] if last else [False] * len(asked) + [True] * len(given)
            )
            shown.append(show.tokens(tokenizer.convert_ids_to_tokens([*asked, *given]), mask, title))
    return show.together(shown) if shown else Html("<p>This source has none.</p>", "This source has none.")


def _tokenizer(lab: Lab) -> Any:
    """The pretrained run's; before there is one, learned or loaded as that run will do it."""
    from transformers import AutoTokenizer

    from labkit import chat, models

    if run := lab.find("pretrain"):
        return AutoTokenizer.from_pretrained(run.model)
    settings = lab.recipe["model"]
    if settings.path:
        return models.pretrained(settings, cache=lab.outputs)[1]
    return chat.train_tokenizer(lab.source.web("train"), vocabulary=settings.vocabulary, context=settings.context)


def by_rank(lab: Lab, votes: Iterable[Vote]) -> dict[str, list[float]]:
    """Gold of the answers that annotators put first and last; empty lists where there is no gold."""
    found: dict[str, list[float]] = {"ranked first": [], "ranked last": []}
    for vote in (v for v in votes if v.ranks):
        for place, rank in (("ranked first", min(vote.ranks)), ("ranked last", max(vote.ranks))):
            golds = [
                lab.source.grade(vote.prompt, a)[0] for a, r in zip(vote.answers, vote.ranks, strict=True) if r == rank
            ]
            found[place] += [g for g in golds if g is not None]
    return found


def agreement(run: Run) -> list[dict[str, Any]]:
    """Rows of who and agreement for a preferences run: between annotators, with gold, with "the longer one wins"."""
    pairs = [p for v in run.votes() if v.prompt.split == SPLIT for p in v.pairs()]
    longer = [float(len(p.chosen) > len(p.rejected)) for p in pairs if len(p.chosen) != len(p.rejected)]
    rows = {
        "two annotators": run.summary.get("agreement"),
        "annotator and gold": run.summary.get("agreement_with_gold"),
        "annotator and “the longer one”": sum(longer) / len(longer) if longer else None,
    }
    return [{"who": who, "agreement": share} for who, share in rows.items() if share is not None]


def rewarded(lab: Lab, answers: Iterable[Answer]) -> list[Answer]:
    """The answers with the reward model's score added to each, best first."""
    from labkit import ask

    return sorted(ask.rewarded(lab, list(answers)), key=lambda a: -a.scores["reward"])
