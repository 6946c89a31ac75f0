"""A labelling session asks blind, stores what was meant, forgets nothing over a restart, and measures its own rater."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit.errors import LabError
from labkit.feedback.items import Item, item_from_answers, items_from_file, items_from_run, shaped
from labkit.feedback.session import APART, REPEAT, Question, Session
from labkit.feedback.store import VoteStore
from labkit.records import Answer, Prompt, Vote, write_jsonl
from labkit.runs import Run

RUN = "preferences-0a1b2c"


def item(n: int, k: int = 2, run: str = RUN) -> Item:
    return Item.of(Prompt.of(f"Question {n}?"), [f"Answer {n}-{i}" for i in range(k)], run)


def label(question: Question, ranks: list[int], **more: Any) -> dict[str, Any]:
    """What a page sends: `ranks` by place on the screen."""
    told = question.wire()
    keys = [a["key"] for a in told["answers"]]
    return {
        "id": f"{question.id}/{ranks}/{more.get('rater')}",
        "item": told["id"],
        "shown": keys,
        "ranks": ranks,
        "seconds": 2.0,
        **more,
    }


@pytest.fixture
def store(tmp_path: Path) -> VoteStore:
    return VoteStore(f"sqlite:///{tmp_path / 'votes.sqlite'}")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A preferences run: 12 training prompts with four answers, two of them the same but for blanks, and a validation prompt."""
    votes = []
    for n in range(13):
        prompt = Prompt.of(f"Question {n}?", split="validation" if n == 12 else "train")
        answers = (f"yes {n}", f"no {n}", f"yes  {n} ", f"maybe {n}")
        vote = Vote(
            id=f"v{n}", prompt=prompt, answers=answers, ranks=(1, 2, 3, 4), rater="Tilda", source="simulated", time=""
        )
        votes += [vote, vote]  # two raters rank the same answers
    (tmp_path / RUN).mkdir()
    write_jsonl(tmp_path / RUN / "votes.jsonl", votes)
    return Run(tmp_path / RUN)


@pytest.mark.parametrize(("mode", "k"), [("pair", 2), ("ranking", 3), ("thumb", 1)])
def test_items_of_a_run_are_the_same_for_a_seed_and_do_not_hang_on_each_other(run: Run, mode: str, k: int) -> None:
    items = items_from_run(run, mode=mode)
    assert len(items) == 12 and {len(i.answers) for i in items} == {k}
    assert {i.run for i in items} == {RUN} and {i.prompt.split for i in items} == {"train"}
    assert items_from_run(run, mode=mode, limit=5) == items[:5]
    assert items_from_run(run, mode=mode, seed=1) != items
    assert [i.prompt.text for i in items] != sorted(i.prompt.text for i in items)
    assert all(len({" ".join(a.split()) for a in i.answers}) == k for i in items)
    assert len(items_from_run(run, "validation", mode)) == 1
    with pytest.raises(LabError, match="no test answers"):
        items_from_run(run, "test", mode)


def test_pairs_are_drawn_from_all_answers_and_need_two_different_ones() -> None:
    """Of 5 answers there are 10 pairs; 200 prompts show all of them."""
    texts = [f"answer {i}" for i in range(5)]
    drawn = {shaped(Prompt.of(f"{n}"), texts, "pair").answers for n in range(200)}  # type: ignore[union-attr]
    assert len(drawn) == 10 and all(a < b for a, b in drawn)
    assert shaped(Prompt.of("x"), ["same", " same"], "pair") is None
    assert shaped(Prompt.of("x"), ["same", " same"], "thumb") is not None
    with pytest.raises(LabError, match="'stars'"):
        shaped(Prompt.of("x"), texts, "stars")


def test_ranks_by_place_become_ranks_of_answers(store: VoteStore) -> None:
    """On the screen stand answers 2, 0, 1. Ranks by place 1, 1, 2: answers 2 and 0 share the first rank, 1 is third."""
    session = Session(store, [item(0, 3)], "ada", "ranking")
    question = Question(item(0, 3), "ranking", (2, 0, 1))
    vote = session.take(
        label(question, [1, 1, 2], time="2025-03-01T12:00:00.000Z", reasons=["kind", "kind"], edit=" Better. ")
    )
    assert vote.answers == ("Answer 0-0", "Answer 0-1", "Answer 0-2")
    assert vote.ranks == (1, 3, 1) and vote.shown == (2, 0, 1)
    assert (vote.rater, vote.source, vote.mode, vote.run) == ("ada", "person", "ranking", RUN)
    assert (vote.seconds, vote.reasons, vote.edit) == (2.0, ("kind",), "Better.")
    assert vote.time.startswith("2025-03-01T12:00:00")
    assert store.votes() == [vote]


def test_the_left_one_is_the_better_whatever_stood_there(store: VoteStore) -> None:
    """Over 40 items each side is the first answer about half the time, and "left is better" always means what stood left."""
    session, first = Session(store, [item(n) for n in range(40)], "ada", repeats=0), 0
    for question in session.window(40):
        vote = session.take(label(question, [1, 2]))
        left = question.wire()["answers"][0]["text"]
        assert vote.answers[vote.ranks.index(1)] == left == vote.answers[vote.shown[0]]
        first += vote.shown == (0, 1)
    assert 10 <= first <= 30
    assert session.window() == [] and session.progress()["done"] == 40


def test_two_raters_see_sides_of_their_own_and_the_same_rater_always_the_same(store: VoteStore) -> None:
    items = [item(n) for n in range(40)]
    sides = {name: [q.shown for q in Session(store, items, name, repeats=0).window(40)] for name in ("ada", "bo")}
    assert sides["ada"] != sides["bo"]
    assert sides["ada"] == [q.shown for q in Session(store, items, "ada", repeats=0).window(40)]
    assert sides["ada"] != [q.shown for q in Session(store, items, "ada", repeats=0, seed=1).window(40)]


@pytest.mark.parametrize(
    ("mode", "flag", "ranks", "stored", "pairs"),
    [("pair", "both_bad", [1, 1], (1, 1), 0), ("pair", "skip", [], (), 0), ("pair", "", [1, 1], (1, 1), 0),
     ("pair", "", [2, 1], (2, 1), 1), ("thumb", "", [1], (1,), 0), ("thumb", "", [2], (2,), 0), ("thumb", "skip", [], (), 0)],
)  # fmt: skip
def test_every_verdict_is_stored(
    store: VoteStore, mode: str, flag: str, ranks: list[int], stored: tuple[int, ...], pairs: int
) -> None:
    session = Session(store, [item(0, len(stored) or (1 if mode == "thumb" else 2))], "ada", mode)
    question = Question(session.window()[0].item, mode, tuple(range(len(session.window()[0].shown))))
    vote = session.take(label(question, ranks, flag=flag))
    assert (vote.ranks, vote.flag, len(vote.pairs())) == (stored, flag, pairs)


def test_sent_twice_it_is_stored_once_and_a_second_verdict_is_refused(store: VoteStore) -> None:
    session = Session(store, [item(0), item(1)], "ada")
    first = session.window()[0]
    assert session.take(label(first, [1, 2])) == session.take(label(first, [1, 2]))
    with pytest.raises(LabError, match="judged already"):
        session.take(label(first, [2, 1]))
    with pytest.raises(LabError, match="not asked here"):
        session.take(label(Question(item(7), "pair", (0, 1)), [1, 2]))
    assert store.count() == 1
    with pytest.raises(LabError, match="somebody else"):
        Session(store, [item(0)], "bo").take(label(first, [1, 2]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": ""}, "needs an id"), ({"ranks": [1]}, "ranks 1 of 2"), ({"ranks": "12x"}, "ranks 0 of 2"),
        ({"ranks": None}, "ranks 0 of 2"), ({"shown": ["?", "?"]}, "stood where"), ({"shown": None}, "stood where"),
        ({"flag": "lazy"}, "flag must be"), ({"edit": "x" * 20_001}, "20,000"), ({"rater": "\n"}, "1 to 60"),
        ({"item": None}, "not asked"), ({"item": "zebra:1"}, "not asked"), ({"rater": "x" * 61}, "1 to 60"),
        ({"rater": "a\0b"}, "1 to 60"),
    ],
)  # fmt: skip
def test_a_damaged_label_is_refused_in_a_sentence_and_stores_nothing(
    store: VoteStore, change: dict[str, Any], said: str
) -> None:
    session = Session(store, [item(0)], "ada")
    with pytest.raises(LabError, match=said):
        session.take({**label(session.window()[0], [1, 2]), **change})
    assert store.count() == 0


def test_what_a_page_may_leave_out_or_get_wrong_is_made_good(store: VoteStore) -> None:
    session = Session(store, [item(0)], "ada")
    odd = {"seconds": float("nan"), "time": "noon", "reasons": "kind", "edit": None}
    vote = session.take({**label(session.window()[0], [1, 2]), **odd})
    assert (vote.seconds, vote.reasons, vote.edit) == (0.0, (), "") and vote.time > "2025"


def test_an_undone_item_comes_back_first_and_a_late_copy_of_its_label_does_not(store: VoteStore) -> None:
    session = Session(store, [item(n) for n in range(3)], "ada")
    first, second, _ = session.window()
    sent = label(first, [1, 2])
    session.take(sent)
    session.take(label(second, [1, 2]))
    assert session.undo().retracts == label(second, [1, 2])["id"]
    assert session.undo().retracts == sent["id"]
    assert session.window()[0] == first and store.votes() == []
    session.take(sent)  # its acknowledgement was lost on the way
    assert session.window()[0] == first and store.votes() == []
    session.take(label(first, [2, 1]))
    assert [v.id for v in store.votes()] == [label(first, [2, 1])["id"]]
    assert [v.id for v, _ in session.recent()] == [label(first, [2, 1])["id"]]
    session.undo(sent["id"])  # a second time
    assert store.count() == 1 and session.window()[0] == second


def test_only_ones_own_votes_can_be_taken_back(store: VoteStore) -> None:
    session = Session(store, [item(0)], "ada")
    with pytest.raises(LabError, match="nothing to take back"):
        session.undo()
    vote = session.take(label(session.window()[0], [1, 2]))
    with pytest.raises(LabError, match="bo has given no vote"):
        session.undo(vote.id, "bo")
    assert store.count() == 1


def test_after_a_restart_nothing_is_asked_again(store: VoteStore) -> None:
    items = [item(n) for n in range(6)]
    before = Session(store, items, "ada", repeats=0)
    for question in before.window(2):
        before.take(label(question, [1, 2]))
    again = Session(store, items, "ada", repeats=0)
    assert again.window(9) == before.window(9) and len(again.window(9)) == 4
    assert again.progress()["done"] == 2 and again.recent(1)[0][1] == again.recent(9)[0][1]
    assert len(Session(store, items, "bo", repeats=0).window(9)) == 6
    other_run = [item(n, run="preferences-ffffff") for n in range(6)]
    assert (
        len(Session(store, other_run, "ada", repeats=0).window(9)) == 6
    )  # the same words, but their votes train something else


def test_a_label_finds_its_sides_even_if_the_seed_changed_meanwhile(store: VoteStore) -> None:
    items = [item(n) for n in range(40)]
    waiting = Session(store, items, "ada").window(40)
    later = Session(store, items, "ada", seed=5)
    for question in waiting[:20]:
        if question.again:
            continue
        vote = later.take(label(question, [1, 2]))
        assert vote.shown == question.shown and vote.ranks[question.shown[0]] == 1


def test_what_another_program_stored_is_noticed(store: VoteStore) -> None:
    one, two = (Session(store, [item(n) for n in range(3)], "ada") for _ in range(2))
    first = two.window()[0]
    vote = one.take(label(first, [1, 2]))
    with pytest.raises(LabError, match="judged already"):
        two.take(label(first, [2, 1]))
    assert first not in two.window()
    one.undo(vote.id)
    assert two.window()[0] == first


def test_a_label_is_its_own_raters_whoever_sits_there_now(store: VoteStore) -> None:
    session = Session(store, [item(0), item(1)], "ada")
    waiting = label(session.window()[0], [1, 2], rater="ada")
    session.rater = "  bo "
    assert session.rater == "bo"
    assert session.take(waiting).rater == "ada"
    assert len(session.window()) == 2 and session.progress()["done"] == 0
    session.rater = "ada"
    assert len(session.window()) == 1
    with pytest.raises(LabError, match="name"):
        session.rater = " "
    assert session.rater == "ada"


def positions(session: Session) -> list[tuple[int, int]]:
    """Of each repeat: how many first askings lie before its own, and how many before the repeat."""
    plan, first, found, items = session.window(10_000), {}, [], 0
    for question in plan:
        if question.again:
            found.append((first[question.item.id], items))
        else:
            first[question.item.id] = items
            items += 1
    return found


@pytest.mark.parametrize(
    ("n", "share", "repeats"), [(30, 0.1, 3), (6, 0.1, 1), (5, 0.5, 0), (100, 0.2, 20), (30, 0, 0)]
)
def test_a_share_comes_back_a_few_items_later_with_the_sides_swapped(
    store: VoteStore, n: int, share: float, repeats: int
) -> None:
    session = Session(store, [item(i) for i in range(n)], "ada", repeats=share)
    found = positions(session)
    assert len(found) == repeats == sum(q.again for q in session.window(1000))
    assert all(later - first >= APART for first, later in found)
    shown = {q.item.id: q.shown for q in session.window(1000) if not q.again}
    assert all(q.shown == shown[q.item.id][::-1] for q in session.window(1000) if q.again)


def answer(session: Session, verdict: Callable[[Question], tuple[list[int], str]]) -> None:
    while window := session.window(1):
        ranks, flag = verdict(window[0])
        session.take(label(window[0], ranks, flag=flag, rater=session.rater))


def test_a_repeat_measures_the_rater_and_trains_nothing(store: VoteStore) -> None:
    """Always left: 30 items, 3 of them again with the sides swapped, so all 3 verdicts differ from the first."""
    session = Session(store, [item(n) for n in range(30)], "lefty")
    answer(session, lambda q: ([1, 2], ""))
    assert session.consistency() == (0, 3)
    assert len(store.votes(run=RUN)) == 30 and len(store.votes(run=REPEAT + RUN)) == 3
    assert {p.chosen for v in store.votes(run=RUN) for p in v.pairs()} == {
        v.answers[v.shown[0]] for v in store.votes(run=RUN)
    }
    steady = Session(store, [item(n) for n in range(30)], "steady")
    answer(steady, lambda q: ([1, 2] if q.shown == (0, 1) else [2, 1], ""))
    assert steady.consistency() == (3, 3)
    assert (steady.progress()["alike"], steady.progress()["twice"]) == (3, 3)


def test_rankings_agree_pair_by_pair_and_skips_do_not_count(store: VoteStore) -> None:
    """Six items of three answers, one asked twice. First 1 2 3, then 1 3 2 (by answer): two of the three pairs agree."""
    session = Session(store, [item(n, 3) for n in range(6)], "ada", "ranking")
    by_answer = lambda q, ranks: [ranks[i] for i in q.shown]  # noqa: E731
    answer(session, lambda q: (by_answer(q, (1, 3, 2) if q.again else (1, 2, 3)), ""))
    assert session.consistency() == (2, 3)
    skipping = Session(store, [item(n, 3) for n in range(6)], "bo", "ranking")
    answer(skipping, lambda q: ([], "skip"))
    assert skipping.consistency() == (0, 0)
    assert store.count(rater="bo") == 6  # what was skipped is not asked a second time


def test_progress_goes_by_the_median(store: VoteStore) -> None:
    """8 items, no repeats; 3 judged in 2, 4 and 600 s (a pause): median 4 s, so 15 a minute and 20 s left for 5."""
    session = Session(store, [item(n) for n in range(8)], "ada", repeats=0)
    assert session.progress()["pace"] is None
    for question, seconds in zip(session.window(3), (2, 600, 4), strict=True):
        session.take(label(question, [1, 2], seconds=seconds))
    wanted = {"rater": "ada", "mode": "pair", "done": 3, "of": 8, "pace": 15.0, "left": 20, "alike": 0, "twice": 0}
    assert session.progress() == wanted


def test_modes_share_a_session_and_keep_their_votes_apart(store: VoteStore) -> None:
    session = Session(store, {"thumb": [item(0, 1)], "pair": [item(0)], "ranking": []}, "ada")
    assert session.modes == ["pair", "thumb"] and session.mode == "pair"
    waiting = label(session.window()[0], [1, 2])
    session.mode = "thumb"
    assert session.take(label(session.window()[0], [2])).mode == "thumb"
    assert session.take(waiting).mode == "pair"
    assert session.progress()["done"] == 1
    with pytest.raises(LabError, match="'ranking'"):
        session.mode = "ranking"
    with pytest.raises(LabError, match="'stars'"):
        Session(store, {"stars": [item(0)]}, "ada")


def test_a_typed_item_comes_next_and_its_label_survives_a_restart(store: VoteStore) -> None:
    session = Session(store, [item(n) for n in range(3)], "ada")
    session.typing = True
    made = item_from_answers(" Who are you? ", ["a", "b", "a "], run=session.run)
    assert made.prompt.text == "Who are you?" and sorted(made.answers) == ["a", "b"]
    session.add(made)
    first = session.window()[0]
    assert first.item == made and "whole" not in session.wire(session.window()[1])
    sent = json.loads(json.dumps({**label(first, [1, 2]), "whole": session.wire(first)["whole"]}))
    closed = Session(store, [item(n) for n in range(3)], "ada")
    with pytest.raises(LabError, match="not asked here"):
        closed.take(sent)
    closed.typing = True
    with pytest.raises(LabError, match="not asked here"):
        closed.take({**sent, "whole": {**sent["whole"], "answers": ["a", "what nobody said"]}})
    with pytest.raises(LabError, match="not asked here"):
        closed.take({**sent, "whole": {**sent["whole"], "run": "preferences-ffffff"}})
    vote = closed.take(sent)
    assert (vote.prompt, vote.run, vote.answers) == (made.prompt, RUN, made.answers)


def test_a_typed_prompt_that_is_held_out_stays_held_out() -> None:
    held_out = Prompt.of("Who are you?", split="test", kind="fact")
    answers = [Answer(prompt=held_out, text=t, author="sft") for t in ("a", "b")]
    assert item_from_answers("who are you", answers).prompt == held_out
    with pytest.raises(LabError, match="same answer every time"):
        item_from_answers("who?", ["a", "a "])


def test_a_file_gives_items_and_names_its_damaged_lines(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "One?", "answers": ["a", "b", "c"]},
        {"prompt": [{"role": "user", "content": "Two?"}], "chosen": "z", "rejected": "y"},
        {"chosen": "\n\nHuman: Three?\n\nAssistant: p", "rejected": "\n\nHuman: Three?\n\nAssistant: q"},
        {"prompt": "One?", "answers": ["a", "b", "c"]},
        {"prompt": "Four?"},
        ["not", "an", "object"],
        {"prompt": "Five?", "answers": ["same", "same"]},
        {"prompt": "Six?", "answers": "text"},
    ]
    file.write_text(
        "\n".join([*map(json.dumps, rows[:3]), "", "{broken", *map(json.dumps, rows[3:])]), encoding="utf-8"
    )
    items, said = items_from_file(file, "ranking", run=RUN)
    assert [i.prompt.text for i in items] == ["One?", "Two?", "Three?"]
    assert [i.answers for i in items] == [("a", "b", "c"), ("y", "z"), ("p", "q")]  # the chosen one is not always first
    assert {i.run for i in items} == {RUN} and [i.id for i in items] == [
        i.id for i in items_from_file(file, "ranking")[0]
    ]
    assert said.startswith(
        "5 of 9 rows are damaged and left out: line 5 (not JSON), line 7 (no column 'chosen'), line 8 (list"
    )
    assert "line 9 (no two different answers), line 10 (answers must be a list of texts)." in said
    assert len(items_from_file(file, "pair", limit=2)[0]) == 2


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "it is empty"), (b"{}\n", "line 1"), (b"\xff\xfe", "UTF-8"), (None, "No such")]
)
def test_a_file_without_anything_to_judge_is_an_error(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "pairs.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LabError, match=said):
        items_from_file(file)


def test_an_outbox_is_named_after_run_and_store(store: VoteStore, tmp_path: Path) -> None:
    elsewhere = VoteStore(f"sqlite:///{tmp_path / 'others.sqlite'}")
    name = Session(store, [item(0)], "ada").name
    assert name.startswith(f"{RUN}/") and name == Session(store, [item(1)], "bo").name
    assert name != Session(elsewhere, [item(0)], "ada").name != Session(elsewhere, [item(0, run="")], "ada").name


def test_a_persons_vote_changes_what_learns_from_votes_and_only_that(tmp_path: Path) -> None:
    """The next reward model and DPO, and what is built on them; not the runs before, and not by a repeat."""
    lab = labkit.open("smoke", outputs=str(tmp_path))
    names = ("pretrain", "sft", "preferences", "sft_twice", "reward", "dpo", "ppo")
    plans = lambda: {name: lab.plan(name).id for name in names}  # noqa: E731
    before = plans()
    session = Session(lab.votes, [item(n, run=before["preferences"]) for n in range(6)], "ada")
    answer(session, lambda q: ([1, 2], "") if not q.again else ([2, 1], ""))
    assert lab.votes.count() == 7
    changed = {name for name, plan in plans().items() if plan != before[name]}
    assert changed == {"reward", "dpo", "ppo"}
    assert len(lab.plan("dpo").votes or []) == 6
    for vote in lab.votes.votes():
        session.undo(vote.id)
    assert plans() == before
