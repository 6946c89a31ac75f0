"""One seed, one world; no evaluation question in anything that a model trains on; text that a person would write."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from labkit.errors import LabError
from labkit.records import SPLITS, Prompt
from labkit.world import Settings, World
from labkit.world.combinations import KINDS
from labkit.world.lexicon import data, entities
from labkit.world.pages import Pages

SMALL = Settings(documents=3_000, demonstrations=1_500)
_SPEAKER = re.compile(r"^(?:Q|A|[A-Z][a-z]+): ")


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, SMALL)


@pytest.fixture(scope="module")
def web(world: World) -> list[str]:
    return world.web()


def asked(world: World, text: str) -> set[str]:
    """The combinations of all questions found in a text: whole lines, lines after a speaker, and runs of sentences."""
    found = set()
    for line in text.split("\n"):
        sentences = re.split(r"(?<=[.?!]) ", _SPEAKER.sub("", line))
        for i in range(len(sentences)):
            for j in range(i + 1, min(i + 4, len(sentences)) + 1):
                c = world.questions.get(" ".join(sentences[i:j]).lower())
                found |= {c.key} if c else set()
    return found


def test_every_combination_has_one_split(world: World) -> None:
    keys = {split: {c.key for c in world.combinations(split)} for split in SPLITS}
    assert sum(len(k) for k in keys.values()) == len(set().union(*keys.values()))
    assert all(len(k) > 300 for k in keys.values())
    for split in SPLITS:
        prompts = world.prompts(split)
        assert {p.meta["combination"] for p in prompts} <= keys[split]
        assert all(p.split == split for p in prompts)


def test_no_question_belongs_to_two_combinations(world: World) -> None:
    """Two combinations with one wording would let an evaluation prompt into training by the back door."""
    owners: dict[str, set[str]] = {}
    for split in SPLITS:
        for c in world.combinations(split):
            for text in c.wordings():
                owners.setdefault(text.lower(), set()).add(c.key)
    assert len(owners) > 20_000
    assert [t for t, keys in owners.items() if len(keys) > 1] == []


def test_the_web_and_the_demonstrations_ask_training_questions_only(world: World, web: list[str]) -> None:
    """Every question in the text is parsed back to its combination, and none is a validation or test combination."""
    in_web = set().union(*(asked(world, page) for page in web))
    in_demonstrations = {a.prompt.meta["combination"] for a in world.demonstrations()}
    in_demonstrations |= set().union(*(asked(world, a.prompt.text + "\n" + a.text) for a in world.demonstrations()))
    in_demonstrations |= asked(world, world.few_shot())
    assert len(in_web) > 1_000 and len(in_demonstrations) > 1_000  # the parser does find questions
    held_out = {c.key for split in ("validation", "test") for c in world.combinations(split)}
    assert in_web.isdisjoint(held_out)
    assert in_demonstrations.isdisjoint(held_out)


def test_the_parser_finds_what_the_pages_recorded(world: World) -> None:
    """The scan is no empty promise: it finds every combination that the writer says it asked, and no other."""
    import random

    pages = Pages(world.combinations("test"), random.Random(3))
    texts = pages.write(300)
    assert set().union(*(asked(world, t) for t in texts)) == pages.asked
    assert len(pages.asked) > 100


def test_no_evaluation_prompt_is_in_the_text_as_a_string(world: World, web: list[str]) -> None:
    everything = "\n".join([*web, *(a.prompt.text + "\n" + a.text for a in world.demonstrations())]).lower()
    held_out = [p.text.lower() for s in ("validation", "test") for p in world.prompts(s)]
    assert len(held_out) == 700
    assert [q for q in held_out if q in everything] == []


def test_the_desk_is_taught_by_demonstrations_alone(world: World, web: list[str]) -> None:
    """No page names coins, tickets for a price, opening hours or returns; each price is in some demonstration."""
    pages = "\n".join(web).lower()
    assert not re.search(
        r"\bcosts? (?:two|three|four|five|six|seven|eight|nine|ten)\b|ferry office|within seven days|open from", pages
    )
    taught = "\n".join(
        a.text for a in World(0).demonstrations() if a.prompt.kind == "desk" and a.author in ("excellent", "fine")
    )
    desk = data("lexicon")["desk"]
    for item, price in {**desk["prices"], **desk["tickets"]}.items():
        assert re.search(rf"{item}\b.*{price} coins|{price} coins.*{item}\b", taught), item


def test_test_prompts_are_enough_of_every_kind() -> None:
    world = World(0)
    counts = Counter(p.kind for p in world.prompts("test"))
    assert sum(counts.values()) == 400 and counts["harmful"] >= 35
    assert set(counts) == set(KINDS) and min(counts.values()) >= 15
    train = world.prompts("train")
    assert len({p.text for p in train}) == len(train) >= 2_500


def test_one_seed_one_world_in_every_process(world: World) -> None:
    """Another process with another hash seed makes the same text."""
    code = (
        "from labkit.world import World, Settings; from labkit.records import digest;"
        "w = World(0, Settings(documents=3000, demonstrations=1500));"
        "print(w.digest(), digest(w.web()), digest([a.text for a in w.demonstrations()]),"
        " digest([p.text for p in w.prompts('test')]))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] and runs[0].split()[0] == world.digest()
    assert World(1, SMALL).digest() != world.digest() != World(0).digest()
    assert [p.id for p in World(1, SMALL).prompts("test")] != [p.id for p in world.prompts("test")]


def test_prompts_survive_json(world: World) -> None:
    import json
    from dataclasses import asdict

    prompt = world.prompts("test")[0]
    again = Prompt.from_json(json.loads(json.dumps(asdict(prompt))))
    assert world.grade(again, "Yes.") == world.grade(prompt, "Yes.")


def test_demonstrations_keep_the_mix(world: World) -> None:
    counts = Counter(a.author for a in world.demonstrations())
    for quality, share in SMALL.mix.items():
        assert abs(counts[quality] / SMALL.demonstrations - share) < 0.005
    assert all(a.prompt.split == "train" and a.text.strip() for a in world.demonstrations())


def test_the_text_reads_like_english(web: list[str]) -> None:
    for page in web:
        assert "{" not in page and "  " not in page, page
        assert not re.search(r"\b(\w+) \1\b(?<!round round)(?<!had had)", page), page
        assert not re.search(r"\b[Aa] [aeio]\w|\b[Aa]n (?!hour)[bcdfghjklmnpqrstvwxyz]\w", page), page
    assert 0.95 < len(set(web)) / len(web)


def test_questions_are_plain_and_short(world: World) -> None:
    assert max(len(q.split()) for q in world.questions) <= 30


def test_the_few_shot_template_fits_and_ends_where_the_answer_starts(world: World) -> None:
    template = world.few_shot()
    assert template.count("{prompt}") == 1 and template.endswith("\nA:") and len(template.split()) <= 75


def test_values_that_mean_one_thing(world: World) -> None:
    """Every fact of every entity is recognised in its own claim, and nothing else of that attribute is."""
    from labkit.world import truth
    from labkit.world.lexicon import claim
    from labkit.world.signals import Signals

    seen = 0
    for e in entities().values():
        for attribute, value in e.facts.items():
            assert truth.named(Signals(claim(e, attribute, value)), e.group, attribute) == [value], (e.name, attribute)
            seen += 1
    assert seen == 184


def test_a_wrong_split_is_a_sentence(world: World) -> None:
    with pytest.raises(LabError, match="validation"):
        world.web("trian")
