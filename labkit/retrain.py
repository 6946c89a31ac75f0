"""Label, retrain, look: one person's votes become a reward model and a policy in seconds, and are measured at once.

    mine    from the SFT model, on the person's votes alone
    mixed   from the finished dpo (or kto) and reward runs, on the person's votes and up to 300 simulated pairs

A fifth of the person's prompts is never trained on: whether the models order those pairs as the person did says if anything
was understood. An answer that the person wrote is preferred to those that were shown, and before that imitated, in a light
pass of SFT. What is made are runs like any other (`reward_yours`, `sft_yours`, `dpo_yours`, `kto_yours`): their ids hang on the
votes, they stand on no ladder, and no command makes or reads them. They answer validation prompts only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labkit import effect, exercises, runs, stages
from labkit.effect import Retrained
from labkit.errors import LabError
from labkit.feedback import edits
from labkit.feedback.standing import Standing, simulated, standing
from labkit.job import Stop, Stopped
from labkit.lab import Lab, Plan
from labkit.records import Answer, Prompt, Vote, digest
from labkit.runs import Run

if TYPE_CHECKING:
    from labkit.exercises import Exercise

VERSION = 1
METHODS = {"dpo": "DPO, from pairs and rankings", "kto": "KTO, from thumbs and pairs"}
MIXES = {"mine": "your votes alone", "mixed": "yours and simulated ones"}
LEAST = 5  # votes to train on
SHOWN = 6  # prompts answered before and after by the same dice
Progress = Callable[[dict[str, Any]], None]

# Some thirty votes want other settings than thousands: the smallest batch, about so many steps (in passes over what there is),
# and what the recipe's rate is multiplied by. Measured on the recipe tiny: more steps or a higher rate moved the answers no
# farther and cost gold; a finished model that is trained on has half the rate, since it has more to lose.
BATCH = {"reward": 8, "sft": 4, "dpo": 8, "kto": 16}
STEPS = {"reward": 40, "sft": 16, "dpo": 40, "kto": 40}
RATE = {"mine": 1.0, "mixed": 0.5}
IMITATE = 0.5  # of SFT's rate, for answers that the person wrote: DPO makes a habit of what was begun here


def finished(lab: Lab, name: str) -> Run | None:
    """The run of that name by this recipe, whatever votes it had: with one vote more, the ladder's own is out of date."""
    plan = lab.plan(name)
    if run := runs.find(lab.folder, plan.id):
        return run
    settings, parents = plan.settings.model_dump(mode="json"), {n: p.id for n, p in plan.parents.items()}
    found = [Run(file.parent) for file in lab.folder.glob(f"{name}-??????/{runs.MANIFEST}")]
    same = [r for r in found if r.manifest["settings"] == settings and r.manifest["parents"] == parents]
    return max((r for r in same if (r.path / "model").is_dir()), key=lambda r: r.manifest["finished"], default=None)


def retrain(
    lab: Lab, *, method: str = "dpo", mix: str = "mine", rater: str | None = None, exercise: str = "",
    progress: Progress | None = None, stop: Stop | None = None,
) -> Retrained:  # fmt: skip
    """Train on what a person has voted, answer again, and measure. The same votes a second time find the same runs.

    `progress` takes rows of step, of and seconds; `stop` ends it, and then nothing of it is kept. Raises LabError for too few
    votes, and Stopped.
    """
    clock, stop = time.monotonic(), stop or Stop()
    votes = check(lab, method=method, mix=mix, rater=rater, exercise=exercise)
    steps = _Steps(progress, clock, stop)
    made = _train(lab, method, mix, votes, steps)
    steps.say("measure", 0.0)
    found = exercises.find(exercise) if exercise else None
    held_out, examples = _measure(lab, votes, made, found)
    steps.say("measure", 1.0)
    return Retrained(
        method, mix, made["before"], made["after"], made.get("reward"), votes.counts(), held_out, examples,
        counted={found.measure: (found.count, found.form)} if found else {},
        samples=lab.recipe["answers"].bootstrap, seconds=round(time.monotonic() - clock, 1),
    )  # fmt: skip


def check(lab: Lab, *, method: str, mix: str, rater: str | None = None, exercise: str = "") -> Standing:
    """The votes that a retraining would learn from; raises LabError where there is too little, or nothing to start from."""
    if method not in METHODS or mix not in MIXES:
        raise LabError(f"There is no {method!r} on {mix!r}: choose among {', '.join(METHODS)} and {', '.join(MIXES)}.")
    need(lab, "sft")
    votes = standing(lab, mix=mix, rater=rater, exercise=exercise)
    usable = sum(bool(v.pairs()) or (method == "kto" and v.mode == "thumb") for v in edits.preferred(votes.train))
    if usable >= LEAST:
        return votes
    if method == "dpo" and votes.counts()["thumbs"] >= LEAST:
        raise LabError(
            f"DPO learns from pairs, and there are {usable} of them: choose KTO, which reads thumbs, or judge pairs."
        )
    raise LabError(
        f"There are {usable} votes to train on (a fifth of the prompts is kept out), and {LEAST} are needed: label some more."
    )


def need(lab: Lab, name: str) -> Run:
    """The finished run of that name; raises LabError where there is none."""
    run = lab.find(name)
    if not run:
        raise LabError(f"Retraining starts from {name}, which is not there: run page {stages.GRAPH[name].page} first.")
    return run


def _train(lab: Lab, method: str, mix: str, votes: Standing, steps: _Steps) -> dict[str, Run]:
    """The runs by role: before, after, sft, and reward and judge (the reward model that stood before) where there are any."""
    sft, judge = need(lab, "sft"), finished(lab, "reward")
    before = (finished(lab, method) if mix == "mixed" else None) or sft
    made = {"sft": sft, "before": before} | ({"judge": judge} if judge else {})
    both = votes.together()
    written = [v for v in votes.train if edits.edited(v)]
    parents = {"sft": sft, "preferences": need(lab, "preferences")}

    def make(name: str, own: dict[str, Run], given: list[Vote]) -> Run:
        run = _Asked(lab, name, own, given, mix).run(name, listen=steps.listener(name), stop=steps.stop)
        if run.stopped:
            raise Stopped("Retraining was stopped before its end: press the button again to go on from where it was.")
        return run

    if sum(bool(v.pairs()) for v in edits.preferred(votes.train)) >= LEAST:
        begin = {"start": judge} if judge and mix == "mixed" else {}
        made["reward"] = make("reward_yours", parents | begin, both)
    begin = {} if before is sft else {"start": before}
    if written:
        begin = {"start": make("sft_yours", {"sft": before}, written)}
    made["after"] = make(f"{method}_yours", parents | begin, both)
    return made


class _Asked(Lab):
    """The same lab with one plan of its own for a run on request, and with the test prompts out of its sight."""

    def __init__(self, lab: Lab, name: str, parents: dict[str, Run], votes: list[Vote], mix: str) -> None:
        self.__dict__.update(lab.__dict__)
        demonstrations = edits.demonstrations(votes) if name == "sft_yours" else None
        self.__dict__["source"] = _Shown(lab.source, demonstrations)
        self._asked, self._parents, self._given, self._mix = name, parents, votes, mix

    def plan(self, name: str, known: dict[str, Plan] | None = None) -> Plan:
        if name != self._asked:
            return super().plan(name, known)
        node = stages.GRAPH[name]
        settings = _settings(self, node.stage, self._given, self._mix)
        shared = {s: self.recipe[s].model_dump(mode="json", exclude={"bootstrap"}) for s in ("model", "answers")}
        identity = {
            "name": name, "version": [VERSION, stages.module(node.stage).VERSION], **shared,
            "settings": settings.model_dump(mode="json"), "seed": self.recipe.seed, "source": self.source.digest(),
            "parents": {role: run.id for role, run in self._parents.items()}, "votes": digest([v.id for v in self._given], 12),
        }  # fmt: skip
        parents = {role: Plan(run.name, run.id, settings, {}, None) for role, run in self._parents.items()}
        return Plan(name, f"{name}-{digest(identity)}", settings, parents, self._given)


class _Shown:
    """A source without its test split, and with a person's own answers as demonstrations where they are to be imitated."""

    def __init__(self, source: Any, demonstrations: list[Answer] | None) -> None:
        self._source, self._own = source, demonstrations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def prompts(self, split: str) -> list[Prompt]:
        return [] if split == "test" else self._source.prompts(split)

    def web(self, split: str) -> list[str]:
        return [] if split == "test" else self._source.web(split)

    def demonstrations(self) -> list[Answer]:
        if self._own is None:
            self._own = self._source.demonstrations()  # the world writes them anew each time
        return self._own


def _settings(lab: Lab, stage: str, votes: list[Vote], mix: str) -> Any:
    """The recipe's settings, changed to suit so few votes."""
    own, changed = lab.recipe[stage], edits.preferred(votes)
    rows = {
        "reward": sum(bool(v.pairs()) for v in changed),
        "sft": len(votes),
        "dpo": sum(len(v.pairs()) for v in changed),
    }
    rows["kto"] = 2 * rows["dpo"] + sum(v.mode == "thumb" for v in votes)
    many = max(1, rows[stage])
    batch = min(own.batch, max(BATCH[stage], -(-many // STEPS[stage])))
    update: dict[str, Any] = {
        "batch": batch, "accumulate": 1, "epochs": max(1, round(STEPS[stage] * batch / many)), "threads": 1, "half": "all",
        "learning_rate": own.learning_rate * (IMITATE if stage == "sft" else RATE[mix]), "pairs": 0, "limit": 0,
    }  # fmt: skip
    return own.model_copy(update={k: v for k, v in update.items() if k in type(own).model_fields})


class _Steps:
    """Progress of a whole retraining in hundredths, as rows that a `Background` takes."""

    SPANS = {
        "reward_yours": (0, 30), "sft_yours": (30, 40), "dpo_yours": (40, 60), "kto_yours": (40, 60), "measure": (75, 100),
    }  # fmt: skip

    def __init__(self, progress: Progress | None, clock: float, stop: Stop) -> None:
        self._progress, self._clock, self.stop, self._step = progress, clock, stop, 0

    def listener(self, name: str) -> Callable[..., None]:
        """What hears a run's own steps."""
        return lambda job, row: self.say(name, row["step"] / row["of"])

    def say(self, name: str, share: float) -> None:
        """How far a part of it is; said only where a hundredth more is done. Raises Stopped once it was stopped."""
        if self.stop.is_set():
            raise Stopped("Retraining was stopped, and nothing of it is kept.")
        start, end = self.SPANS[name]
        step = round(start + share * (end - start))
        if self._progress and step > self._step:
            self._step = step
            self._progress({"step": step, "of": 100, "seconds": round(time.monotonic() - self._clock, 2), "part": name})


def _measure(
    lab: Lab, votes: Standing, made: dict[str, Run], exercise: Exercise | None
) -> tuple[list[dict[str, Any]], list[tuple[Prompt, Answer, Answer]]]:
    """Rows of `heldout.ordered` on the person's pairs and on simulated ones, and answers before and after by the same dice."""
    from labkit import heldout

    models = heldout.Models(lab, made)
    own = [p for v in edits.preferred(votes.held_out) for p in v.pairs()]
    others = [p for v in simulated(lab, "validation") for p in v.pairs()]
    rows = heldout.ordered(models, own, "your pairs") + heldout.ordered(models, others, "simulated pairs")
    asked = [p for p in lab.source.prompts("validation") if not exercise or exercise.count(p, "") is not None]
    return rows, heldout.side_by_side(models, effect.spread(asked, SHOWN))
