"""Votes go out and come back: nothing is lost on the way, whatever the form and the format."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from random_votes import PAIR, VOTES

from labkit.errors import LabError
from labkit.feedback import exchange, exports, imports
from labkit.feedback.store import VoteStore, check
from labkit.records import Vote, write_jsonl


def out_and_in(votes: Iterable[Vote], path: Path, form: str, format: str = "") -> dict[str, Vote]:
    exports.write(votes, path, form, format)
    found = imports.read(path)
    assert found.damaged == []
    return {v.id: v for v in found.votes}


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_the_random_votes_are_votes() -> None:
    for vote in VOTES:
        check(vote)
    assert {v.flag for v in VOTES} == {"", "both_bad", "skip"}
    assert sum(v.mode == "ranking" and len(set(v.ranks)) < len(v.ranks) for v in VOTES) > 20
    assert sum(not v.ranks for v in VOTES) > 20


@pytest.mark.parametrize("format", ["jsonl", "parquet", "datasets", "json"])
def test_every_form_gives_back_the_same_votes(tmp_path: Path, format: str) -> None:
    """400 random votes by six forms: what comes back is what went in, and what is left out is only what the form cannot say."""
    says = {
        "preference": lambda v: bool(v.pairs()),
        "unpaired": lambda v: v.flag != "skip" and (v.mode == "thumb" or v.flag == "both_bad" or bool(v.pairs())),
        "ranking": lambda v: v.flag != "skip" and v.mode != "thumb",
        "demonstrations": lambda v: bool(v.edit),
        "comparator": lambda v: v.flag != "skip" and v.mode != "thumb",
        "votes": lambda v: True,
    }
    seen = 0
    for form, can in says.items():
        if (form == "comparator") == (format == "json"):
            expected = {v.id: v for v in VOTES if can(v)}
            assert len(expected) > 100
            assert out_and_in(VOTES, tmp_path / f"{form}.{format}", form, format) == expected, form
            seen += 1
    assert seen == (1 if format == "json" else 5)


def test_half_a_character_goes_as_json_and_is_refused_elsewhere(tmp_path: Path) -> None:
    odd = replace(PAIR, edit="half \ud83d")
    assert out_and_in([odd], tmp_path / "x.jsonl", "preference") == {"pair": odd}
    assert out_and_in([odd], tmp_path / "x.json", "comparator") == {"pair": odd}
    with pytest.raises(LabError, match="half a character.*write jsonl"):
        exports.write([odd], tmp_path / "x.parquet", "votes")
    assert [p.name for p in tmp_path.iterdir() if "parquet" in p.name] == [], "nothing half written stays"
    named = replace(PAIR, prompt=replace(PAIR.prompt, messages=({"role": "user", "content": "?", "name": "eve"},)))
    assert out_and_in([named], tmp_path / "n.jsonl", "votes") == {"pair": named}
    with pytest.raises(LabError, match="have name too"):
        exports.write([named], tmp_path / "n.parquet", "votes")


def test_what_each_form_says(tmp_path: Path) -> None:
    """By hand: a ranking (1, 1, 3) makes two pairs and three comparisons, one of them a tie."""
    three = replace(PAIR, id="three", mode="ranking", answers=("a", "b", "c"), ranks=(1, 1, 3), shown=(2, 0, 1))
    both = replace(PAIR, id="both", ranks=(1, 1), flag="both_bad")
    thumb = replace(PAIR, id="thumb", mode="thumb", answers=("a",), ranks=(2,), shown=(0,), edit="Much better.")
    said = lambda t: [{"role": "assistant", "content": t}]  # noqa: E731

    def rows(form: str) -> list[tuple[Any, ...]]:
        made = [row for v in (PAIR, three, both, thumb) for row in exchange.rows(v, form)]
        own = [
            c for c in made[0] if c not in exchange.COLUMNS and c not in ("individual_rater_scores", "custom_fields")
        ]
        asked = [{"role": "user", "content": "Where do otters sleep?"}]
        assert all(row.get("prompt", asked) == asked for row in made)
        return [tuple(row[c] for c in own if c != "prompt") for row in made]

    assert rows("preference") == [
        (said("On the bank."), said("Go away.")), (said("a"), said("c")), (said("b"), said("c")),
    ]  # fmt: skip
    good, bad = (said("On the bank."), True), (said("Go away."), False)
    ranked = [(said("a"), True), (said("c"), False), (said("b"), True), (said("c"), False)]
    assert rows("unpaired") == [good, bad, *ranked, (said("On the bank."), False), bad, (said("a"), False)]
    assert rows("demonstrations") == [(said("Much better."),)]
    asked, sides = ("Where do otters sleep?", ["fact"]), ("On the bank.", "Go away.")
    triple = [(*asked, "a", "b", 0.0), (*asked, "a", "c", 1.0), (*asked, "b", "c", 1.0)]
    assert rows("comparator") == [(*asked, *sides, 1.0), *triple, (*asked, *sides, 0.0)]
    path = tmp_path / "r.jsonl"
    exports.write([PAIR, three, both, thumb], path, "ranking")
    assert [r["ranks"] for r in written(path)] == [[1, 2], [1, 1, 3], [1, 1]]
    with pytest.raises(LabError, match="there are preference, unpaired"):
        list(exchange.rows(PAIR, "poem"))


def test_the_comparator_file_is_what_that_program_reads(tmp_path: Path) -> None:
    """Its README: metadata with a schema for every custom field, two models, examples with these seven keys."""
    made = exports.write([PAIR, replace(PAIR, id="tie", ranks=(1, 1))], tmp_path / "c.json", "comparator")
    whole = json.loads(made.path.read_text())
    assert list(whole) == ["metadata", "models", "examples"]
    schema = {f["name"]: f["type"] for f in whole["metadata"]["custom_fields_schema"]}
    assert set(schema.values()) == {"string", "category", "number", "text", "per_model_category"}
    assert isinstance(whole["metadata"]["source_path"], str)
    assert len(whole["models"]) == 2
    keys = "input_text tags output_text_a output_text_b score individual_rater_scores custom_fields"
    for example in whole["examples"]:
        assert list(example) == keys.split()
        assert set(example["custom_fields"]) == set(schema)
        author, *others = reversed(example["custom_fields"].values())
        assert author == [None, None] and all(isinstance(v, str | float) for v in others)
    rating = whole["examples"][0]["individual_rater_scores"][0]
    assert rating["rating_label"] == "A is better" and rating["is_flipped"] is True and rating["rationale"] == "kinder"
    assert whole["examples"][1]["individual_rater_scores"][0]["rating_label"] == "tie"
    assert [m["name"] for m in whole["models"]] == ["answer A", "answer B"]
    round_ = replace(PAIR, run="arena", reasons=("blind", "by=dpo-3fa9c1", "by=ppo-54b221"))
    assert out_and_in([round_], made.path, "comparator") == {"pair": round_}
    whole = json.loads(made.path.read_text())
    assert [m["name"] for m in whole["models"]] == ["dpo-3fa9c1", "ppo-54b221"], "an arena compares two models"
    assert whole["examples"][0]["individual_rater_scores"][0]["rationale"] == ""


def test_undos_and_what_they_undid_travel_as_votes(tmp_path: Path) -> None:
    there, here = (VoteStore(f"sqlite:///{tmp_path / name}.sqlite") for name in ("there", "here"))
    there.add(PAIR, replace(PAIR, id="other"))
    there.retract("pair", rater="ada")
    exports.write(exports.chosen(there, "votes"), tmp_path / "v.jsonl", "votes")
    exports.write(exports.chosen(there, "preference"), tmp_path / "p.jsonl", "preference")
    here.add(*imports.read(tmp_path / "v.jsonl").votes)
    assert here.history() == there.history() and here.votes() == there.votes()
    assert [v.id for v in imports.read(tmp_path / "p.jsonl").votes] == ["other"]

    undo = [v for v in there.history() if v.retracts]
    write_jsonl(tmp_path / "u.jsonl", undo)
    assert "takes back pair, which is no vote here" in imports.read(tmp_path / "u.jsonl").damaged[0][1]
    assert imports.read(tmp_path / "u.jsonl", stored={"pair"}).votes == undo
    backwards = [replace(undo[0], id="undo the undo", retracts=undo[0].id), *undo, PAIR]
    write_jsonl(tmp_path / "b.jsonl", backwards)
    found = imports.read(tmp_path / "b.jsonl")
    assert [v.id for v in found.votes] == ["pair", undo[0].id], "an undo after what it undoes, and none of an undo"
    assert len(found.damaged) == 1


def test_where_an_export_may_go(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear friend")
    for name, form, sentence in (
        ("x.json", "votes", "name it something.jsonl"), ("x.jsonl", "comparator", "name it something.json"),
        ("x.docx", "votes", "says nothing"), ("mine", "votes", "other things in it"), ("mine", "comparator", "JSON file"),
    ):  # fmt: skip
        with pytest.raises(LabError, match=sentence):
            exports.write([PAIR], tmp_path / name, form)
    with pytest.raises(LabError, match="no vote here that can be written as demonstrations"):
        exports.write([PAIR], tmp_path / "new" / "x.jsonl", "demonstrations")
    assert not (tmp_path / "new").exists()
    with pytest.raises(LabError, match="cannot be written"):
        exports.write([PAIR], tmp_path / "mine" / "letter.txt" / "x.jsonl", "votes")
    for _ in range(2):  # a file and a data set of that name are replaced
        made = exports.write([PAIR, replace(PAIR, id="tie", ranks=(1, 1))], tmp_path / "folder", "preference")
        assert (made.format, made.rows, made.votes, made.left_out) == ("datasets", 1, 1, 1)
        assert exports.write([PAIR], tmp_path / "x.jsonl", "votes").rows == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "mine", "x.jsonl"]


def test_pseudonyms(tmp_path: Path) -> None:
    """One a rater, the same tomorrow, another in another lab; neither name nor id stands in the file."""
    key = exports.pseudonym_key(tmp_path)
    assert key == exports.pseudonym_key(tmp_path) and len(key) == 32
    assert (tmp_path / ".pseudonyms.key").stat().st_mode & 0o077 == 0
    votes = [PAIR, replace(PAIR, id="b"), replace(PAIR, id="c", rater="Zoë"), replace(PAIR, id="u", retracts="b")]
    hidden = exports.anonymous(votes, key)
    assert hidden == exports.anonymous(votes, key)
    assert hidden[0].rater == hidden[1].rater != hidden[2].rater
    assert hidden[3].retracts == hidden[1].id
    assert not {v.id for v in hidden} & {v.id for v in votes} and len({v.id for v in hidden}) == 4
    (tmp_path / "else").mkdir()
    assert exports.anonymous(votes, exports.pseudonym_key(tmp_path / "else"))[0].rater != hidden[0].rater
    assert [replace(v, id="", rater="", retracts="") for v in hidden] == [
        replace(v, id="", rater="", retracts="") for v in votes
    ]
    exports.write(hidden, tmp_path / "a.json", "comparator")
    assert '"ada"' not in (tmp_path / "a.json").read_text()


@pytest.mark.slow
def test_trl_reads_what_is_exported(tmp_path: Path) -> None:
    """TRL's own functions take the rows for conversations, and unpair our preferences into our unpaired rows."""
    from datasets import load_from_disk
    from trl import is_conversational, unpair_preference_dataset

    votes = [v for v in VOTES if v.mode != "thumb" and v.flag == ""]
    for form in ("preference", "unpaired", "demonstrations"):
        exports.write(votes, tmp_path / form, form)
    preference, unpaired, shown = (
        load_from_disk(str(tmp_path / f)) for f in ("preference", "unpaired", "demonstrations")
    )
    assert all(is_conversational(d[0]) for d in (preference, unpaired, shown))
    theirs = unpair_preference_dataset(preference.select_columns(["prompt", "chosen", "rejected"]))
    as_set = lambda d: sorted(json.dumps([r["prompt"], r["completion"], r["label"]]) for r in d)  # noqa: E731
    assert as_set(theirs) == as_set(unpaired)
