"""The arena's votes and standings: worked by hand, against scipy, and through the store."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import synthetic
from scipy.stats import binomtest

from labkit import arena, compare, statistics
from labkit.errors import LabError
from labkit.feedback.store import VoteStore, check
from labkit.records import Prompt
from labkit.runs import Run

PROMPT = Prompt.of("Who?", kind="fact", split="validation", meta={"task": "who"})
SFT, DPO, PPO = "sft-aaaaaa", "dpo-bbbbbb", "ppo-cccccc"


def letter(n: int, authors: tuple[str, ...], choice: Any, **more: Any) -> dict[str, Any]:
    """What a page sends: answers as they stood on the screen."""
    made = {"id": f"letter-{n}", "prompt": arena.record(PROMPT), "answers": [f"By {a}." for a in authors]}
    return {**made, "seal": arena.seal(authors), "blind": True, "choice": choice, "seconds": 2.5,
            "time": "2026-01-01T00:00:00Z", **more}  # fmt: skip


def test_a_vote_says_who_wrote_what_and_which_side_it_stood_on() -> None:
    """DPO stood on the right and won: stored first (by name), shown second."""
    vote = arena.vote(letter(1, (SFT, DPO), 1), rater="Wren")
    assert (vote.answers, vote.ranks, vote.shown) == (("By dpo-bbbbbb.", "By sft-aaaaaa."), (1, 2), (1, 0))
    assert vote.reasons == ("blind", "by=dpo-bbbbbb", "by=sft-aaaaaa") and arena.authors(vote) == (DPO, SFT)
    assert (vote.run, vote.source, vote.mode, vote.rater, vote.seconds) == ("arena", "person", "pair", "Wren", 2.5)
    assert vote.prompt == PROMPT and [(p.chosen, p.rejected) for p in vote.pairs()] == [
        ("By dpo-bbbbbb.", "By sft-aaaaaa.")
    ]
    check(vote)


def test_open_votes_over_many_and_votes_for_none() -> None:
    best = arena.vote(letter(1, (SFT, PPO, DPO), 0, blind=False), rater="Wren")
    assert (best.mode, best.ranks, best.shown) == ("ranking", (2, 2, 1), (2, 1, 0))
    assert best.answers == ("By dpo-bbbbbb.", "By ppo-cccccc.", "By sft-aaaaaa.") and "blind" not in best.reasons
    tie, bad, skip = (arena.vote(letter(2, (SFT, DPO), c), rater="Wren") for c in ("tie", "both_bad", "skip"))
    assert [(v.ranks, v.flag) for v in (tie, bad, skip)] == [((1, 1), ""), ((1, 1), "both_bad"), ((), "skip")]
    for vote in (best, tie, bad, skip):
        check(vote)


@pytest.mark.parametrize(
    "broken",
    [{"choice": 2}, {"choice": None}, {"answers": ["one"]}, {"seal": "x"}, {"prompt": {}}, {"seconds": "soon"}],
)
def test_a_letter_that_is_not_whole_is_no_vote(broken: dict[str, Any]) -> None:
    with pytest.raises(LabError, match="vote again"):
        arena.vote({**letter(1, (SFT, DPO), 0), **broken}, rater="Wren")


def test_standings_by_hand() -> None:
    """SFT–DPO: DPO, DPO, tie. DPO–PPO: PPO, both bad. Points: DPO 2 + ½ + 0 + ½ = 3 of 5, PPO 1½ of 2, SFT ½ of 3."""
    rounds = [
        (SFT, DPO, 1),
        (DPO, SFT, 0),
        (SFT, DPO, "tie"),
        (DPO, PPO, 1),
        (PPO, DPO, "both_bad"),
        (SFT, PPO, "skip"),
    ]
    votes = [arena.vote(letter(n, (a, b), c), rater="Wren") for n, (a, b, c) in enumerate(rounds)]
    votes.append(arena.vote(letter(9, (SFT, DPO), 0, blind=False), rater="Wren"))  # the names were seen
    rows = arena.standings(votes)
    told = {r["model"]: (r["rounds"], r["won"], r["tied"], r["lost"], r["rate"]) for r in rows}
    assert told == {PPO: (2, 1, 1, 0, 0.75), DPO: (5, 2, 2, 1, 0.6), SFT: (3, 0, 1, 2, pytest.approx(1 / 6))}
    assert [r["model"] for r in rows] == [PPO, DPO, SFT]
    assert arena.standings([]) == []


@pytest.mark.parametrize(("won", "n"), [(0, 5), (8, 10), (3, 3), (50, 117)])
def test_the_interval_is_wilsons(won: int, n: int) -> None:
    theirs = binomtest(won, n).proportion_ci(method="wilson")
    assert statistics.wilson(won / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_standings_survive_the_program_and_forget_what_was_taken_back(tmp_path: Path) -> None:
    store = VoteStore(f"sqlite:///{tmp_path / 'votes.sqlite'}")
    votes = [arena.vote(letter(n, (SFT, DPO), 1), rater="Wren") for n in range(4)]
    assert store.add(*votes) == 4 and store.add(votes[0]) == 0, "a letter sent twice is one vote"
    store.retract("letter-3", rater="Wren")
    again = VoteStore(store.address).votes(run=arena.RUN)
    assert [(r["model"], r["rounds"]) for r in arena.standings(again)] == [(DPO, 3), (SFT, 3)]


def test_names_go_there_and_back(tmp_path: Path) -> None:
    dpo = Run(tmp_path / "dpo-3fa9c1")
    dpo.__dict__["manifest"] = {"name": "dpo"}
    stopped = Run(tmp_path / "dpo-3fa9c1.stopped-12")
    stopped.__dict__["manifest"] = {"name": "dpo"}
    base = Run(tmp_path / "pretrain-862b3e")
    base.__dict__["manifest"] = {"name": "pretrain"}
    for author, run, identity, name in [
        ("dpo", dpo, "dpo-3fa9c1", "dpo"),
        ("dpo-3fa9c1", dpo, "dpo-3fa9c1", "dpo"),
        ("dpo", stopped, "dpo-3fa9c1.stopped-12", "dpo"),
        ("prompted", base, "prompted of pretrain-862b3e", "prompted"),
        ("prompted of pretrain-862b3e", base, "prompted of pretrain-862b3e", "prompted"),
    ]:
        assert arena.identity(author, run) == identity and arena.named(identity) == (name, run.id)
    assert arena.identity("mine", None) == "mine" and arena.named("mine") == ("mine", "")
    assert arena.unseal(arena.seal(["ä", "b"])) == ["ä", "b"]


def test_rounds_are_drawn_evenly_and_never_of_equal_words(tmp_path: Path) -> None:
    """Each of three models on each side about a third of 600 times; refusals in the same words never meet."""
    c = compare.join(synthetic.ladder(tmp_path, only=("sft", "ppo", "dpo")).values(), samples=200)
    rng, left, right = random.Random(0), [], []
    for _ in range(600):
        prompt, pair = arena.draw(c, c.authors, rng)
        assert len({a.text for a in pair.values()}) == 2 and all(a.prompt == prompt for a in pair.values())
        left.append(next(iter(pair)))
        right.append(list(pair)[1])
    for side in (left, right):
        assert all(160 < side.count(author) < 240 for author in ("sft", "ppo", "dpo"))
    with pytest.raises(LabError, match="two models"):
        arena.draw(c, ["sft"], rng)
