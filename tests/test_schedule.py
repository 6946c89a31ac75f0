"""Which page next. The numbers are worked by hand; nothing runs."""

from __future__ import annotations

import pytest

from labkit import schedule
from labkit.errors import LabError
from labkit.schedule import Page
from labkit.stages import GRAPH, Node


def page(name: str, *needs: str, seconds: float = 10, slots: int = 1) -> Page:
    return Page(name, (name,), needs, slots, seconds)


def of(*pages: Page) -> dict[str, Page]:
    return {p.name: p for p in pages}


DIAMOND = of(page("a"), page("b", "a", seconds=30), page("c", "a", seconds=5), page("d", "b", "c"))


def test_a_run_brings_its_parents_and_its_page_is_made_whole() -> None:
    """ppo needs sft and reward; reward needs preferences; its page holds a control, which comes along."""
    assert schedule.select(GRAPH, ["ppo"]) == ["pretrain", "sft", "preferences", "reward", "ppo", "sft_twice"]
    assert schedule.select(GRAPH, ["dpo"]) == ["pretrain", "sft", "preferences", "dpo", "dpo_shuffled"]
    assert schedule.select(GRAPH) == list(GRAPH)


def test_optional_parents_are_not_asked_for() -> None:
    """compare takes every finished model and needs none; `judge` stands on its page and needs sft and preferences."""
    assert schedule.select(GRAPH, ["compare"]) == ["pretrain", "sft", "preferences", "judge", "compare"]


def test_pages_of_the_real_graph() -> None:
    pages = schedule.pages(GRAPH, list(GRAPH), threads={"pretrain": 2}, jobs=2, start=True)
    assert list(pages)[-1] == schedule.START and set(pages) == {n.page for n in GRAPH.values()} | {schedule.START}
    assert pages["05_reward"].needs == ("02_sft", "04_preferences")
    assert pages["07_dpo"].runs == ("dpo", "dpo_shuffled") and pages["06_ppo"].runs == ("ppo", "sft_twice")
    assert set(pages["13_compare"].needs) == set(pages) - {"13_compare", "17_cake", schedule.START}
    assert pages["01_pretrain"].slots == 2 and pages["06_ppo"].slots == 1


def test_a_page_never_waits_for_more_cores_than_there_are() -> None:
    pages = schedule.pages(GRAPH, ["pretrain"], threads={"pretrain": 8}, jobs=2)
    assert pages["01_pretrain"].slots == 2


def test_longest_path_first() -> None:
    """b (30 s) and d (10 s) stand behind b: 40. c (5 s) and d: 15. From a: 10 + 40 = 50."""
    assert schedule.longest_paths(DIAMOND) == {"a": 50, "b": 40, "c": 15, "d": 10}
    first = schedule.pick(DIAMOND, done={"a"}, running=set(), stopped=set(), jobs=1)
    assert first is not None and first.name == "b"


def test_cores_are_never_lent_twice() -> None:
    wide = of(page("a", slots=2), page("b"), page("c"))
    assert schedule.pick(wide, done=set(), running={"b"}, stopped={"c"}, jobs=2) is None
    last = schedule.pick(wide, done=set(), running={"b"}, stopped=set(), jobs=2)
    assert last is not None and last.name == "c"


def test_what_stopped_holds_back_what_depends_on_it() -> None:
    state = {"done": {"a"}, "running": set(), "stopped": {"b"}}
    only = schedule.pick(DIAMOND, **state, jobs=2)
    assert only is not None and only.name == "c"
    state["done"].add("c")
    assert schedule.pick(DIAMOND, **state, jobs=2) is None


@pytest.mark.parametrize(("jobs", "seconds", "width"), [(1, 55, 1), (2, 50, 2), (8, 50, 2)])
def test_simulation_by_hand(jobs: int, seconds: float, width: int) -> None:
    """One core: 10 + 30 + 5 + 10 = 55 s. Two: c hides behind b, so 10 + 30 + 10 = 50 s; more cores change nothing."""
    assert schedule.simulate(DIAMOND, jobs) == (seconds, width)


def test_a_circle_is_said() -> None:
    circle = {"x": Node(("y",), "1", "x", ""), "y": Node(("x",), "2", "y", "")}
    with pytest.raises(LabError, match="circle"):
        schedule.pages(circle, ["x", "y"], threads={}, jobs=1)
