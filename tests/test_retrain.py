"""Label, retrain, look: what a person's votes become, what is kept out, and that nothing half-made or foreign comes of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_lab
import torch
import voted_lab

from labkit import effect, exercises, losses, retrain, runs, stages
from labkit.errors import LabError
from labkit.feedback import edits
from labkit.feedback.session import REPEAT, Session, items_from_run
from labkit.feedback.standing import SIMULATED, Standing, drawn, kept_out, simulated, standing
from labkit.job import Stop, Stopped
from labkit.lab import Lab
from labkit.records import Prompt, Vote
from labkit.runs import Run
from widgets.label import LabelView

torch.set_num_threads(1)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return voted_lab.voted(tmp_path)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrain, "STEPS", dict.fromkeys(retrain.STEPS, 3))
    monkeypatch.setattr(retrain, "SHOWN", 2)


# ---- what there is to learn from -----------------------------------------------------------------


def test_an_edited_answer_stands_before_all_that_were_shown() -> None:
    """Ranks 2 and 1 become 1 (the edit), 3 and 2: three pairs. What was not changed, or was skipped, is no edit."""
    vote = tiny_lab.vote("Who?", ("a", "b"), (2, 1), edit="better")
    [changed] = edits.preferred([vote])
    assert changed.answers == ("better", "a", "b") and changed.ranks == (1, 3, 2)
    assert [(p.chosen, p.rejected) for p in changed.pairs()] == [("better", "b"), ("better", "a"), ("b", "a")]
    bad = tiny_lab.vote("Who?", ("a", "b"), (1, 1), edit="better", flag="both_bad")
    assert [(p.chosen, p.rejected) for p in edits.preferred([bad])[0].pairs()] == [("better", "a"), ("better", "b")]
    plain = [
        tiny_lab.vote("Who?", ("a", "b"), (1, 2), edit="a"),
        tiny_lab.vote("Who?", ("a", "b"), (), edit="c", flag="skip"),
    ]
    assert edits.preferred(plain) == plain and not edits.demonstrations(plain)
    assert [(d.text, d.author) for d in edits.demonstrations([vote])] == [("better", "Wren")]


def test_a_fifth_of_the_prompts_is_kept_out_for_ever() -> None:
    """Of 1,000 prompts 200 ± 13 (one standard deviation); which ones hangs on the prompt alone."""
    prompts = [Prompt.of(f"Who is {n}?") for n in range(1000)]
    out = [p.id for p in prompts if kept_out(p)]
    assert 150 < len(out) < 250
    assert out == [p.id for p in prompts if kept_out(Prompt.of(p.text, kind="other", meta={"a": 1}))]


def test_standing_parts_a_persons_votes(lab: Lab) -> None:
    """Only Ada's, skips and test prompts never; what is kept out does not train; the simulated ones only where they are asked for."""
    votes = voted_lab.label(lab, 20)
    voted_lab.label(lab, 4, rater="Ben")
    mine = standing(lab, rater="Ada")
    assert {v.id for v in mine.train} == {v.id for v in votes if not kept_out(v.prompt)}
    assert {v.id for v in mine.held_out} == {v.id for v in votes if kept_out(v.prompt)} and mine.held_out
    assert not mine.simulated and {v.rater for v in standing(lab).train} == {"Ada", "Ben"}
    mixed = standing(lab, mix="mixed", rater="Ada")
    assert len(mixed.simulated) == 40 and {v.source for v in mixed.simulated} == {"simulated"}
    counts = mixed.counts()
    assert counts["pairs"] == len(mine.train) and counts["votes"] == 20 and counts["simulated"] == 40
    test = replace(votes[0], id="t", prompt=replace(votes[0].prompt, id="held", split="test"))
    lab.votes.add(test, replace(votes[1], id="s", flag="skip", ranks=()))
    assert standing(lab, rater="Ada").counts() == mine.counts()


def test_beside_simulated_votes_the_persons_are_about_half() -> None:
    """Four of Ada's beside twelve: each stands three times. Alone, each stands once."""
    own = [tiny_lab.vote(f"Who is {n}?", ("a", "b"), (1, 2)) for n in range(4)]
    others = [tiny_lab.vote(f"What is {n}?", ("a", "b"), (1, 2)) for n in range(12)]
    assert Standing(own, [], others).together() == own * 3 + others
    assert Standing(own, [], []).together() == own
    assert Standing(own * 9, [], others).together() == own * 9 + others


def test_a_pair_is_drawn_out_of_each_simulated_ranking(lab: Lab) -> None:
    ranking = tiny_lab.vote("Who?", ("a", "b", "c"), (3, 1, 2))
    one = drawn(ranking)
    assert [(p.chosen, p.rejected) for p in one.pairs()][0] in [("b", "c"), ("b", "a"), ("c", "a")] and len(
        one.pairs()
    ) == 1
    assert one == drawn(ranking) and one.id == ranking.id
    assert {len(v.answers) for v in simulated(lab, "train")} == {2} and len(simulated(lab, "train")) <= SIMULATED


def test_too_little_is_said_in_a_sentence(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"There are 0 votes to train on.*5 are needed: label some more"):
        retrain.retrain(lab, rater="Ada")
    voted_lab.label(lab, 20, mode="thumb")
    with pytest.raises(LabError, match="DPO learns from pairs.*choose KTO"):
        retrain.retrain(lab, rater="Ada")
    with pytest.raises(LabError, match="choose among dpo, kto"):
        retrain.retrain(lab, method="ppo")
    with pytest.raises(LabError, match="run page 02_sft first"):
        retrain.retrain(voted_lab.opened(lab.outputs / "empty"), rater="Ada")


# ---- retraining ----------------------------------------------------------------------------------


def test_retraining_leaves_whole_runs_made_of_exactly_these_votes(lab: Lab) -> None:
    """Reward model and policy, from SFT, with the votes as they were used; a second time they are found, one vote more and
    they are others; no ladder and no command knows them, and only validation prompts were answered."""
    voted_lab.label(lab, 16)
    ladder, said = dict(lab.finished()), []
    first = retrain.retrain(lab, rater="Ada", progress=said.append)
    mine = standing(lab, rater="Ada")
    for run, name in ((first.after, "dpo_yours"), (first.reward, "reward_yours")):
        assert run and run.name == name and run.manifest["stage"] == name.removesuffix("_yours")
        assert [v.id for v in run.votes()] == [v.id for v in mine.train] and run.manifest["votes"] == len(mine.train)
        assert run.manifest["parents"] == {n: lab.plan(n).id for n in ("sft", "preferences")}
        run.check()
        assert run.model.is_dir() and run.metrics()
    assert {a.prompt.split for a in first.after.answers()} == {"validation"}
    assert {a.author for a in first.after.answers()} == {"dpo_yours"}
    assert [row["step"] for row in said] == sorted({row["step"] for row in said}) and said[-1]["step"] == said[-1][
        "of"
    ] == 100
    assert lab.finished() == ladder and not {"dpo_yours", "reward_yours"} & set(stages.GRAPH)
    assert first.after.id in {r.id for r in runs.every(lab.outputs)}

    again = retrain.retrain(lab, rater="Ada")
    assert (again.after.path, again.reward and again.reward.path) == (
        first.after.path,
        first.reward and first.reward.path,
    )
    assert again.held_out == first.held_out and again.examples == first.examples
    voted_lab.label(lab, 6, rater="Ben")
    assert retrain.retrain(lab, rater="Ada").after.id == first.after.id
    assert retrain.retrain(lab).after.id != first.after.id, "everybody's votes are others"


def test_held_out_pairs_are_judged_before_and_after(lab: Lab) -> None:
    voted_lab.label(lab, 30)
    made = retrain.retrain(lab, rater="Ada")
    n = standing(lab, rater="Ada").counts()["held_out"]
    found = {(row["judge"], row["on"]): row for row in made.held_out}
    assert set(found) == {
        (j, on) for j in ("reward model", "DPO’s implicit reward") for on in ("your pairs", "simulated pairs")
    }
    mine = found["reward model", "your pairs"]
    assert mine["n"] == n > 0 and mine["before"] is None, "no reward model stood before"
    assert 0 <= mine["after_ci"][0] <= mine["after"] <= mine["after_ci"][1] <= 1
    assert found["DPO’s implicit reward", "simulated pairs"]["n"] == 12
    assert len(made.examples) == 2 and {b.author for _, b, _ in made.examples} == {"sft"}
    assert json.loads(json.dumps(made.told()))["held_out"][0]["before"] == "–"


def test_thumbs_alone_feed_kto_and_no_reward_model(lab: Lab) -> None:
    voted_lab.label(lab, 30, mode="thumb")
    made = retrain.retrain(lab, method="kto", rater="Ada")
    assert (
        made.reward is None and made.after.name == "kto_yours" and made.votes["thumbs"] == made.after.manifest["votes"]
    )
    assert made.after.summary["good"] + made.after.summary["bad"] == made.votes["thumbs"]


def test_an_answer_of_ones_own_is_imitated_first(lab: Lab) -> None:
    """The edits of training prompts are SFT's demonstrations; what comes of it is where DPO starts."""
    voted_lab.label(lab, 12, edit="The heron thanks the river.")
    made = retrain.retrain(lab, rater="Ada")
    [start] = lab.folder.glob("sft_yours-*")
    written = [v for v in standing(lab, rater="Ada").train if v.edit]
    assert Run(start).summary["demonstrations"] == len(written) > 0
    assert made.after.manifest["parents"]["start"] == start.name
    assert made.votes["edits"] == len(written) and made.votes["pairs"] == 3 * len(written)
    assert made.after.summary["pairs"] == 3 * len(written)


def test_mixed_goes_on_from_the_finished_runs_even_when_a_vote_has_put_them_out_of_date(lab: Lab) -> None:
    """The policy starts from the newest dpo with these parents and settings; a dpo of another beta is none of them."""
    dpo = voted_lab.policy(lab, "dpo", seed=1)
    other = voted_lab.opened(lab.outputs, dpo__beta=0.9)
    voted_lab.policy(other, "dpo", seed=2)
    voted_lab.label(lab, 16)
    assert lab.find("dpo") is None and retrain.finished(lab, "dpo") == dpo
    made = retrain.retrain(lab, mix="mixed", rater="Ada")
    assert made.before == dpo and made.after.manifest["parents"]["start"] == dpo.id
    used = [v.id for v in made.after.votes()]
    assert used == [v.id for v in standing(lab, mix="mixed", rater="Ada").together()]
    assert sum(i.startswith("simulated") for i in used) == 40


@pytest.mark.parametrize("when", ["reward_yours", "dpo_yours", "measure"])
def test_stop_leaves_nothing_that_could_be_taken_for_finished(lab: Lab, when: str) -> None:
    voted_lab.label(lab, 16)
    stop = Stop()
    with pytest.raises(Stopped):
        retrain.retrain(
            lab, rater="Ada", stop=stop, progress=lambda row: stop.abandon() if row["part"] == when else None
        )
    left = {p.name.split("-")[0] for p in lab.folder.glob("*_yours-*") if p.is_dir()}
    whole = {p.parent.name.split("-")[0] for p in lab.folder.glob(f"*_yours-*/{runs.MANIFEST}")}
    assert (
        left
        == whole
        == {"reward_yours": set(), "dpo_yours": {"reward_yours"}, "measure": {"reward_yours", "dpo_yours"}}[when]
    )
    assert retrain.retrain(lab, rater="Ada").after.name == "dpo_yours"


def test_an_error_on_the_way_leaves_no_finished_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    voted_lab.label(lab, 16)
    with monkeypatch.context() as patch:
        patch.setattr(losses, "dpo", lambda chosen, *_, **__: chosen * math.nan)
        with pytest.raises(LabError, match="became nan"):
            retrain.retrain(lab, rater="Ada")
    assert not list(lab.folder.glob(f"dpo_yours-*/{runs.MANIFEST}"))
    assert retrain.retrain(lab, rater="Ada").after.name == "dpo_yours"


# ---- the ladder ----------------------------------------------------------------------------------


def ids(lab: Lab) -> dict[str, str]:
    return {name: lab.plan(name).id for name in stages.GRAPH}


def test_a_vote_in_the_widget_changes_what_reward_and_dpo_are_next_and_only_that(lab: Lab) -> None:
    """By the votes' digest alone: the settings and parents of both stay. Taken back, everything is as it was. What is built
    on people's votes changes with them; votes of the arena, of an exercise and on repeats change nothing."""
    preferences = lab.plan("preferences").id
    before, plans = ids(lab), {name: lab.plan(name) for name in ("reward", "dpo")}
    session = Session(lab.votes, items_from_run(Run(lab.folder / preferences)), "Ada", repeats=0)
    view = LabelView(session)
    view.say = lambda kind, **content: None  # type: ignore[method-assign]
    question = session.wire(session.window(1)[0])
    keys = [a["key"] for a in question["answers"]]
    letter = {"id": "v1", "item": question["id"], "shown": keys, "ranks": [1, 2], "seconds": 2.0}
    view.hear({"kind": "letters", "letters": [letter]})

    after = ids(lab)
    reads = {n for n, node in stages.GRAPH.items() if "preferences" in node.parents and not node.optional}
    reads = {n for n in reads if getattr(stages.module(stages.GRAPH[n].stage), "READS_VOTES", False)}
    assert {"reward", "dpo"} <= reads
    built = {n for n in stages.GRAPH if any(after[p] != before[p] for p in stages.GRAPH[n].parents)} - {
        "compare",
        "cake",
    }
    assert {n for n in after if after[n] != before[n]} == reads | built
    assert not {"pretrain", "sft", "preferences", "sft_twice"} & (reads | built)
    for name, was in plans.items():
        now = lab.plan(name)
        assert now.settings == was.settings and {n: p.id for n, p in now.parents.items()} == {
            n: p.id for n, p in was.parents.items()
        }
        assert now.votes and was.votes is not None and {v.id for v in now.votes} - {v.id for v in was.votes} == {"v1"}

    view.hear({"kind": "letters", "letters": [{"kind": "undo", "id": "u1", "vote": "v1"}]})
    assert ids(lab) == before
    [vote] = lab.votes.history(rater="Ada")[:1]
    for n, run in enumerate(("arena", exercises.find("short").run(preferences), REPEAT + preferences)):
        lab.votes.add(replace(vote, id=f"apart-{n}", run=run))
    assert ids(lab) == before


# ---- exercises -----------------------------------------------------------------------------------


def test_an_exercise_offers_pairs_that_its_rule_decides(lab: Lab) -> None:
    short, run = exercises.find("short"), Run(lab.folder / lab.plan("preferences").id)
    offered = exercises.items(short, run)
    assert len(offered) == exercises.PAIRS and offered == exercises.items(short, run)
    for item in offered:
        counts = [len(a.split()) for a in item.answers]
        assert abs(counts[0] - counts[1]) >= short.gap and short.best(item.prompt, item.answers) == counts.index(
            min(counts)
        )
        assert item.run == short.run(run) != run.id and item.prompt.split == "train"
    assert not exercises.items(exercises.find("place"), run), "made-up answers name no place"
    with pytest.raises(LabError, match="choose among short, place"):
        exercises.find("long")


def test_a_story_names_its_place_or_does_not() -> None:
    story = Prompt.of("A story?", kind="story", meta={"entities": ["goose", "harbour", "bucket"]})
    count = exercises.names_the_place
    assert count(story, "The goose went to the Harbour.") == 1 and count(story, "The goose went to the mill.") == 0
    assert (
        count(replace(story, kind="poem"), "the harbour") is None
        and count(Prompt.of("Who?", kind="story"), "x") is None
    )


def test_a_simulated_person_follows_the_rule_through_the_session_and_trains_nothing_else(lab: Lab) -> None:
    short, run = exercises.find("short"), Run(lab.folder / lab.plan("preferences").id)
    before = ids(lab)
    session = exercises.session(short, run, lab.votes, "exercise-short")
    votes = exercises.follow(short, session)
    assert len(votes) == 30 and [v.id for v in exercises.follow(short, session)] == [v.id for v in votes]
    assert lab.votes.count(rater="exercise-short") == 30, "a second time, nothing is new"
    for vote in votes:
        winner = vote.answers[vote.ranks.index(1)]
        assert vote.source == "simulated" and len(winner.split()) == min(len(a.split()) for a in vote.answers)
    assert {v.shown for v in votes} == {(0, 1), (1, 0)}, "the sides are shuffled"
    assert ids(lab) == before and standing(lab).counts()["votes"] == 0
    made = retrain.retrain(lab, rater="exercise-short", exercise="short")
    assert made.votes["votes"] == 30 and next(iter(made.counted)) == made.rows()[0]["measure"] == "words in an answer"


# ---- what it changed -----------------------------------------------------------------------------


def test_the_share_of_pairs_in_order_by_hand() -> None:
    """Prompt a: one of two right; b: a tie; c: right. Mean over prompts (½ + ½ + 1) / 3 = ⅔, not over pairs (5/8)."""
    import numpy as np

    share, (low, high) = effect.share_ordered(np.array([1.0, -2.0, 0.0, 3.0]), ["a", "a", "b", "c"], samples=500)
    assert share == pytest.approx(2 / 3, abs=1e-4) and low < share < high
    share, (low, high) = effect.share_ordered(np.ones(5), list("abcde"), samples=500)
    assert share == 1 and low == pytest.approx(0.5655, abs=1e-3) and high == 1


def test_before_and_after_by_hand(tmp_path: Path) -> None:
    """Two prompts, one answer each: 4 and 6 words become 1 and 3, gold rises by 1 and falls by ½, so one win of two."""
    lab = voted_lab.opened(tmp_path)
    prompts = [Prompt.of(f"Who is {n}?", split="validation", kind="fact") for n in range(2)]
    found = []
    for name, texts, golds in (("sft", ("a b c d", "a b c d e f"), (0.0, 1.0)), ("dpo", ("a", "a b c"), (1.0, 0.5))):
        run = voted_lab.policy(lab, name)
        rows = [replace(run.answers()[0], prompt=p, text=t, scores={"gold": g}, grades={"rude": float(g == 1)}, author=name)
                for p, t, g in zip(prompts, texts, golds, strict=True)]  # fmt: skip
        effect_rows = "\n".join(json.dumps(_plain(r)) for r in rows) + "\n"
        (run.path / "answers.jsonl").write_text(effect_rows)
        found.append(Run(run.path))
    made = effect.Retrained(
        "dpo", "mine", found[0], found[1], None, dict.fromkeys(("pairs", "thumbs", "edits", "simulated"), 0), [], []
    )
    rows = {row["measure"]: row for row in made.rows()}
    assert (rows["words in an answer"]["before"], rows["words in an answer"]["after"]) == (5, 2)
    assert rows["words in an answer"]["difference"] == -3 and rows["words in an answer"]["difference_ci"] == [-3, -3]
    assert (rows["gold score"]["before"], rows["gold score"]["after"]) == (0.5, 0.75)
    assert made.wins()[0] == 0.5 and "correct" not in rows
    told = made.told()
    assert (
        told["title"] == "Words in an answer: 5.0 → 2.0" and told["rows"][0]["clear"] and not told["rows"][1]["clear"]
    )


def _plain(answer: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(answer)


def test_prompts_are_spread_over_kinds() -> None:
    prompts = [Prompt.of(f"{kind} {n}", kind=kind) for kind in ("fact", "story") for n in range(5)]
    chosen = effect.spread(prompts, 4)
    assert sorted(p.kind for p in chosen) == ["fact", "fact", "story", "story"] and chosen == effect.spread(
        prompts[::-1], 4
    )
    assert len(effect.spread(prompts[:2], 6)) == 2


def test_votes_are_read_back_as_they_were(lab: Lab) -> None:
    """What a run says that it used is what it used, word for word."""
    voted_lab.label(lab, 12)
    made = retrain.retrain(lab, rater="Ada")
    kept: list[Vote] = made.after.votes()
    assert kept == standing(lab, rater="Ada").train
