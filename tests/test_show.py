"""What pages print: text and HTML twins, everything escaped, numbers as people read them."""

from __future__ import annotations

import inspect
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import synthetic

from labkit import compare, show, stages, theme
from labkit.records import Answer, Pair, Prompt, Vote

EVIL = "<script>alert('x')</script> & \"quotes\""
PROMPT = Prompt.of(EVIL, kind="fact")
ANSWER = Answer(
    prompt=PROMPT, text=EVIL, author=EVIL, tokens=7, scores={"gold": 1.5}, grades={"rude": 0.0, "correct": None}
)


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def vote(**fields) -> Vote:
    given = {
        "answers": (EVIL, "fine"),
        "ranks": (2, 1),
        "rater": EVIL,
        "source": "person",
        "time": "2026",
        "flag": EVIL,
    }
    return Vote(id="v", prompt=PROMPT, **{**given, **fields})


THINGS = [
    show.record(PROMPT),
    show.record(ANSWER),
    show.record(Pair(prompt=PROMPT, chosen=EVIL, rejected="")),
    show.record(vote()),
    show.side_by_side(EVIL, {EVIL: [EVIL, ANSWER]}, why=EVIL),
    show.table([{EVIL: EVIL}], caption=EVIL),
    show.tokens([EVIL, "\n"], [True, False], EVIL),
    show.badge(EVIL, hover=EVIL),
    show.stage(EVIL),
    show.changed(EVIL, "dpo-2"),
    show.source(inspect.cleandoc),
]


def test_nothing_that_a_model_wrote_becomes_markup():
    for thing in THINGS:
        html = thing._repr_html_()
        assert "<script" not in html and "alert('x')" not in html
        Balanced(html)
        assert repr(thing) and "<div" not in repr(thing)
    assert len(THINGS) == 11


def test_numbers_as_people_read_them():
    assert theme.number(1234567) == "1,234,567" and theme.number(None) == "–" and theme.number(0.123456) == "0.123"
    assert (
        theme.number(-0.3, ".2f") == "−0.30"
        and theme.number(-0.001, ".2f") == "0.00"
        and theme.number(0.756, ".0%") == "76 %"
    )
    assert theme.interval(1.62, [1.49, 1.75]) == "1.62 [1.49, 1.75]"
    assert theme.interval(0.76, [0.71, 0.8], ".0%") == "76 % [71, 80]"
    assert theme.short(2_600_000) == "2.6 M" and theme.short(999_999) == "1 M" and theme.short(0) == "0"
    assert [theme.duration(s) for s in (0, 3.21, 8, 100, 7500)] == ["0 s", "3.2 s", "8 s", "1 min 40 s", "2 h 05 min"]
    assert theme.listed("a") == "a" and theme.listed("abc") == "a, b and c"


def test_a_table_sets_numbers_right_and_joins_intervals():
    out = show.table(
        [{"model": "a", "gold": 1.5, "gold_ci": [1.0, 2.0]}, {"model": "b", "gold": None, "gold_ci": None}]
    )
    assert out.text.splitlines()[2:] == ["a      1.50 [1.00, 2.00]", "b                      –"]
    assert "gold_ci" not in out.html and "text-align:right" in out.html


def test_the_ladder_table_leaves_out_what_nobody_has(tmp_path):
    runs = synthetic.ladder(tmp_path, only=("pretrain", "sft", "ppo"))
    rows = compare.join(runs.values(), samples=100).rows()
    text = show.ladder(rows).text
    assert "refuses harm" in text and len(text.splitlines()) == 6
    assert "refuses harm" not in show.ladder([{**r, "refuse_harm": None} for r in rows]).text
    assert show.ladder(rows, score="judge").text.split()[1] == "judge"


def test_progress_is_one_line():
    line = show.progress(120, 260, 12.0, {"train/loss": 0.6123}, name="dpo")
    assert line == "dpo ▰▰▰▰▰▱▱▱▱▱ 120/260 · loss 0.612 · 14 s left"
    assert show.progress(10, 10, 61.0) == "▰▰▰▰▰▰▰▰▰▰ 10/10 · 1 min 01 s in all"
    assert show.progress(0, 10, 0.0).endswith("0/10")


def test_tokens_show_their_spaces_and_what_counts():
    out = show.tokens(["Hi", " there", "\n", "Yes"], [False, False, False, True], "one record")
    assert out.text == "one record: 1 of 4 tokens count in the loss (coloured)\nHi ·there ↵ [Yes]"


def test_source_is_the_function_itself():
    assert "def cleandoc" in show.source(inspect.cleandoc).text
    assert "font-weight: bold" in show.source(inspect.cleandoc).html


def test_changed_speaks_only_when_the_run_changed():
    assert show.changed("dpo-1", "dpo-1").html == ""
    assert "dpo-1" in show.changed("dpo-1", "dpo-2").text and "dpo-2" in show.changed("dpo-1", "dpo-2").text


def test_a_card_names_the_run_and_its_parents(tmp_path):
    run = synthetic.run(tmp_path, "dpo")
    text = show.card(run).text
    assert run.id in text and "preferences-" in text and "torch 2.13.0" in text and "20 s" in text


def test_settings_say_where_each_value_comes_from():
    rows = [
        {"key": "dpo.beta", "value": 0.3, "origin": "override", "meaning": EVIL},
        {"key": "dpo.path", "value": "", "origin": "default", "meaning": "m"},
    ]
    out = show.settings(SimpleNamespace(rows=lambda section: rows), "dpo")
    assert "<code>0.3</code>" in out.html and "<script" not in out.html and "override" in out.text


@pytest.mark.parametrize("older", [False, True])
def test_the_map_tells_finished_from_changed_from_not_yet(tmp_path, older):
    """SFT is finished; a DPO run of other choices lies there or not; nothing else was run."""
    run = synthetic.run(tmp_path, "sft", suffix="aaaaaa")
    if older:
        synthetic.run(tmp_path, "dpo", suffix="bbbbbb")
    wanted = {"sft": run.id}
    lab = SimpleNamespace(
        folder=Path(tmp_path),
        recipe={"compare": SimpleNamespace(judge="reward_model")},
        plan=lambda name: SimpleNamespace(id=wanted.get(name, f"{name}-cccccc")),
    )
    every = show.map(lab).text.splitlines()[2:]
    lines = {name: next(line for line in every if f" {name}  " in line) for name in ("SFT", "DPO")}
    assert "finished" in lines["SFT"] and run.id in lines["SFT"] and "02_sft" in lines["SFT"]
    assert ("changed since" if older else "not yet run") in lines["DPO"]
    assert "<img" in show.map(lab).html and len(show.map(lab).text.splitlines()) == len(stages.GRAPH) + 2
