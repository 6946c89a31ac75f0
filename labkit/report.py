"""The report: one offline HTML file that a person reads from top to bottom, and `ladder.json` for programs.

Only the report reads the test split. It is computed from finished runs and holds no judgement of its own: every sentence
with a figure comes from `findings`, every figure from `charts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import costs, findings, runs, sections, talks, theme
from labkit.compare import CONTROLS, Comparison, answered, join
from labkit.markup import Html
from labkit.runs import Run
from labkit.sections import Section

if TYPE_CHECKING:
    from labkit.lab import Lab

REWARD = (
    "reward_accuracy", "reward_accuracy_ci", "longer_wins_accuracy", "longer_wins_accuracy_ci", "difference",
    "difference_ci", "n_pairs", "n_prompts", "calibration",
)  # fmt: skip
CURVES = {  # the metrics worth a curve, by stage
    "pretrain": ("train/loss",),
    "sft": ("train/loss", "train/token_accuracy"),
    "reward": ("train/loss", "train/accuracy"),
    "dpo": ("train/dpo_loss", "train/accuracy", "train/margin"),
    "ppo": ("rollout/reward", "rollout/kl", "rollout/tokens", "objective/reward", "objective/kl"),
    "rloo": ("rollout/reward", "rollout/kl", "rollout/tokens"),
}


def compared(runs: Mapping[str, Run], *, split: str, seed: int, bootstrap: int) -> Comparison | None:
    """All runs on the prompts of one split, by the best judge that has scored everybody; None where there is none.

    The proxy is never the judge of models that climbed it.
    """
    if not answered(runs.values(), split):
        return None
    c = join(runs.values(), split=split, score=None, seed=seed, samples=bootstrap)
    return c if c.score else None


def ladder(
    lab_name: str,
    runs: Mapping[str, Run],
    recipe_digest: str,
    seed: int,
    *,
    split: str = "test",
    bootstrap: int = 2000,
) -> dict[str, Any]:
    """The content of ladder.json: a row a model, the reward model's figures, and the claims with their verdicts."""
    return _ladder(
        lab_name, runs, recipe_digest, seed, split, compared(runs, split=split, seed=seed, bootstrap=bootstrap)
    )


def _ladder(
    name: str, runs: Mapping[str, Run], digest: str, seed: int, split: str, c: Comparison | None
) -> dict[str, Any]:
    reward = measured(runs["reward"], split) if "reward" in runs else {}
    talk = talks.join(runs.values(), split=split, seed=seed, samples=c.samples if c else 2000)
    return {
        "recipe": name,
        "recipe_digest": digest,
        "seed": seed,
        "split": split,
        "score": c.score if c else None,
        "notice": c.notice if c else "",
        "rows": c.rows() if c else [],
        "reward": reward,
        "checks": findings.checks(c, reward) + findings.dialogue(talks.table(talk)),
        "cost": costs.blocks(runs),
        "dialogue": talks.table(talk),
    }


def measured(run: Run, split: str) -> dict[str, Any]:
    """A reward model's figures on the held-out pairs of one split; missing ones are None."""
    found = run.summary.get(split, run.summary)
    out = {"run": run.id, **{k: found.get(k) for k in REWARD}}
    if out["difference"] is None and None not in (out["reward_accuracy"], out["longer_wins_accuracy"]):
        out["difference"] = round(out["reward_accuracy"] - out["longer_wins_accuracy"], 6)
    return out


def write(lab: Lab, *, runs: Mapping[str, Run]) -> Path:
    """Write report.html, ladder.json and figures/*.csv into the lab's home; returns the report's path."""
    recipe = lab.recipe
    split, bootstrap = "test", recipe["answers"].bootstrap
    c = compared(runs, split=split, seed=recipe.seed, bootstrap=bootstrap)
    content = _ladder(recipe.name, runs, recipe.digest, recipe.seed, split, c)
    shown = list(_sections(runs, content, c))
    _save(lab.home, content, shown)
    title, paragraph = findings.headline(c, content["checks"])
    page = _template().render(
        lab=recipe.name,
        about=getattr(recipe, "about", ""),
        title=title,
        paragraph=paragraph,
        content=content,
        sections=shown,
        facts=_facts(content, c, runs, bootstrap),
        plotly=Html(_plotly(), "plotly"),
        ink=theme,
    )
    _write(lab.home / "report.html", page)
    return lab.home / "report.html"


def _save(home: Path, content: Mapping[str, Any], shown: list[Section]) -> None:
    _write(home / "ladder.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    (home / "figures").mkdir(exist_ok=True)
    for section in shown:
        for figure in section.figures:
            _write(home / "figures" / f"{figure.name}.csv", figure.csv)


_write = runs.write  # a parameter of the functions here is called `runs`


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _template() -> Any:
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "report.html.j2"
    )


def _sections(runs: Mapping[str, Run], content: Mapping[str, Any], c: Comparison | None) -> Iterator[Section]:
    """The sections that these runs have something to say to, in the order in which a reader wants them."""
    rows = content["rows"]
    if c:
        yield from sections.results(c, rows)
    if content["reward"]:
        yield sections.reward(content["reward"], measured(runs["judge"], content["split"]) if "judge" in runs else {})
    yield from sections.optimisation(c, rows, runs)
    if content["dialogue"]:
        follow = talks.join(runs.values(), split=content["split"], by="follow", seed=content["seed"])
        yield sections.dialogue(content["dialogue"], follow)
    yield sections.cake(runs)
    yield from sections.training(runs, CURVES)
    if c:
        yield sections.samples(c)
    yield sections.lineage(runs)


def _facts(content: Mapping[str, Any], c: Comparison | None, runs: Mapping[str, Run], bootstrap: int) -> dict[str, str]:
    """How it was measured, for somebody who wants to do it again."""
    newest = max(runs.values(), key=lambda r: r.manifest["finished"]).manifest
    rows = content["rows"]
    each = rows[0]["n_answers"] / rows[0]["n_prompts"] if rows else 0
    judges = {
        "gold": "gold, a program that knows the embedded world: true, on topic, kind, refuses harm, of the right length, varied, ended",
        "judge": "a reward model trained on the half of the pairs that PPO’s reward model never saw; it is a model, not a person",
        None: "none",
    }
    facts = {
        "Prompts": f"{len(c.prompts)} of the {c.split} split, {theme.number(each)} answers each; nothing was chosen on them" if c else "",
        "Left out": content["notice"],
        "Judge": judges.get(content["score"], ""),
        "Win rate": "for each prompt the share of all pairs of answers that are won, ties half; then the mean over prompts",
        "Intervals": f"95 %, percentile bootstrap of whole prompts, {bootstrap:,} resamples, paired where two models are compared",
        "Controls": ", ".join(theme.label(n) for n in CONTROLS if any(r["stage"] == n for r in rows)),
        "Recipe": f"{content['recipe']} ({content['recipe_digest']}), seed {content['seed']}",
        "Machine": f"{newest.get('platform', '')}; at most {max(r.manifest.get('peak_mb', 0) for r in runs.values()):,} MB a run",
        "Versions": ", ".join(f"{k} {v}" for k, v in newest.get("versions", {}).items()),
        "Limits": "one seed: the intervals hold the chance of prompts and answers, not of training again. A small model in a small "
        "world shows the shape of an effect, not its size elsewhere.",
    }  # fmt: skip
    return {k: v for k, v in facts.items() if v}
