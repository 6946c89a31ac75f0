"""Real data in every format that is understood, and a sentence for every way in which it is not.

The fixtures were written for these tests: six to eight rows each.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from labkit import datafiles, formats
from labkit.errors import LabError
from labkit.records import SPLITS, digest
from labkit.sources import Data, Files, Source, open_source
from labkit.surface import surface
from labkit.world import World

FIXTURES = Path(__file__).parent / "fixtures"


def files(*, seed: int = 0, **settings: Any) -> Files:
    """A source of fixture files; two prompts for test and one for validation unless said otherwise."""
    for role in ("demonstrations", "preferences", "web"):
        settings[role] = [str(FIXTURES / n) if isinstance(n, str) else str(n) for n in settings.get(role, [])]
    source = open_source(Data(**{"source": "files", "test_prompts": 2, "validation_prompts": 1, **settings}), seed=seed)
    assert isinstance(source, Files)
    return source


def everything(source: Source) -> dict[str, Any]:
    """All prompts and pairs of a source by the prompt's text."""
    prompts = {p.text: p for s in SPLITS for p in source.prompts(s)}
    pairs = {(p.prompt.text, p.chosen, p.rejected) for s in SPLITS for p in source.pairs(s)}
    return {"prompts": prompts, "pairs": pairs}


# --- formats


def test_every_fixture_is_known_by_its_columns() -> None:
    """File → format, usable rows, prompts after merging. Eight files hold 8, 6, 8, 8, 8, 8, 6 rows and 30 documents."""
    wanted = {
        "prompt_completion.jsonl": ("TRL prompt-completion", 8, 6),
        "prompt_completion_messages.jsonl": ("TRL prompt-completion", 6, 6),
        "preference.jsonl": ("TRL preference", 8, 8),
        "preference_messages.jsonl": ("preference without a prompt", 8, 8),
        "transcripts.jsonl": ("preference without a prompt", 7, 7),
        "alpaca.json": ("Alpaca", 8, 8),
        "self_instruct.jsonl": ("self-instruct", 6, 6),
    }
    for name, (form, usable, distinct) in wanted.items():
        where, row = next(iter(datafiles.rows(str(FIXTURES / name))))
        assert formats.detect(row, where).name.startswith(form), name
        role = "preferences" if "preference" in form else "demonstrations"
        source = files(**{role: [name]})
        assert len(source._examples(str(FIXTURES / name), role)) == usable, name
        assert len(everything(source)["prompts"]) == distinct, name
    assert {p.name for p in FIXTURES.iterdir()} == {*wanted, "web.txt"}, "a new fixture needs a line here"


def test_text_and_messages_say_the_same() -> None:
    """The same eight preferences as text with a prompt, and as messages whose common beginning is the prompt."""
    text, messages = files(preferences=["preference.jsonl"]), files(preferences=["preference_messages.jsonl"])
    assert everything(text)["pairs"] == everything(messages)["pairs"]
    assert [p.id for p in text.prompts("test")] == [p.id for p in messages.prompts("test")]
    assert {p.kind for p in text.prompts("train")} == {"preference"}
    assert {p.kind for p in messages.prompts("train")} == {"preference_messages"}


def test_the_container_does_not_matter(tmp_path: Path) -> None:
    """jsonl, json, gzip of both, parquet and CSV of the same rows give the same pairs."""
    import pyarrow as pa
    import pyarrow.parquet

    rows = [json.loads(line) for line in (FIXTURES / "preference.jsonl").read_text().splitlines()]
    text = "\ufeff" + "".join(json.dumps(r) + "\n\n" for r in rows)  # a byte-order mark and blank lines do no harm
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (tmp_path / "e.json").write_text(text)  # one object a line under the other ending
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    with open(tmp_path / "g.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    made = sorted(tmp_path.iterdir())
    wanted = everything(files(preferences=["preference.jsonl"]))["pairs"]
    for path in made:
        source = files(preferences=[path])
        assert everything(source)["pairs"] == wanted, path.name
        assert source.name == path.name[0]
    assert len(made) == 7


def test_transcripts() -> None:
    """HH-RLHF: turns become messages, the answer is the last turn, an empty line inside an answer stays in it."""
    found = everything(files(preferences=["transcripts.jsonl"]))
    boat = next(p for p in found["prompts"].values() if "boat" in p.messages[0]["content"])
    assert [m["role"] for m in boat.messages] == ["user", "assistant", "user"]
    assert boat.text == "The quiet."
    assert ("The quiet.", "Then call it Stillwater.\n\nOr simply Hush.", "Boat.") in found["pairs"]
    source = files(preferences=["transcripts.jsonl"])
    source.prompts("train")
    assert source.left_out == {"the conversations part before the last answer": 1}


def test_turns_alternate() -> None:
    """Empty turns go, two turns of one speaker become one, a trailing "Assistant:" is no turn."""
    turns = formats.conversation(
        "\n\nHuman: Hi\n\nHuman: there\n\nAssistant: \n\nHuman: Human: is a word\n\nAssistant:"
    )
    assert turns == ({"role": "user", "content": "Hi\n\nthere\n\nHuman: is a word"},)
    assert formats.conversation("The label Human: is not a turn") == (
        {"role": "user", "content": "The label Human: is not a turn"},
    )


def test_alpaca() -> None:
    """The input stands under the instruction; equal answers are no preference; `output` demonstrates, else `chosen`."""
    source = files(demonstrations=["alpaca.json"], preferences=["alpaca.json"])
    found = everything(source)
    assert "Correct the spelling.\n\nrecieve" in found["prompts"]
    assert "What is 12 times 12?" in found["prompts"]
    assert len(found["pairs"]) == 7
    assert source.left_out == {"no two different answers": 1}
    texts = {a.prompt.text: a.text for a in source.demonstrations()}
    chosen = {a.prompt.text: a.text for a in files(preferences=["alpaca.json"]).demonstrations()}
    asked = next(
        p.text
        for p in source.prompts("train")
        if p.text in ("Give a synonym for happy.", "Name three rivers of Europe.")
    )
    assert texts[asked] in ("Cheerful.", "The Danube, the Rhine and the Loire.")
    assert chosen[asked] in (
        "A synonym for happy is cheerful.",
        "Three rivers of Europe are the Danube, the Rhine and the Loire.",
    )


def test_single_rows() -> None:
    """Shapes met on the hub that the fixtures do not hold, each worked by hand."""
    user = lambda text: {"role": "user", "content": text}  # noqa: E731
    reply = lambda text: {"role": "assistant", "content": text}  # noqa: E731
    read = lambda row: formats.detect(row, "here").read(row)  # noqa: E731
    whole = read({"prompt": "Hi", "chosen": [user("Hi"), reply("Hello.")], "rejected": [user("Hi"), reply("What?")]})
    assert (whole.messages, whole.chosen, whole.rejected) == ((user("Hi"),), "Hello.", "What?")
    shared = read({"chosen": "Q: Is it late? A: It is not.", "rejected": "Q: Is it late? A: It has been."})
    assert (shared.messages[0]["content"], shared.chosen, shared.rejected) == (
        "Q: Is it late? A: It",
        "is not.",
        "has been.",
    )
    talk = read({"messages": [user("One"), reply("Two"), user("Three"), reply("Four")]})
    assert (len(talk.messages), talk.answer) == (3, "Four")
    assert read({"prompt": "Hi", "completion": "Hello.", "label": True}).answer == "Hello."
    old = read({"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " No."})
    assert (old.messages, old.chosen) == ((user("Hi"),), "Hello.")
    unusable = {
        "labelled as bad": {"prompt": "Hi", "completion": "Bah.", "label": False},
        "an empty answer": {"prompt": "Hi", "completion": " "},
        "no question": {"messages": [reply("I speak first.")]},
        "share no beginning": {"chosen": "Yes", "rejected": "No"},
        "no two different": {"prompt": "Hi", "chosen": "Yes", "rejected": "Yes "},
        "not plain text": {"messages": [user([{"type": "image"}]), reply("A dog.")]},  # type: ignore[arg-type]
        "a turn of 'tool'": {"messages": [{"role": "tool", "content": "42"}, reply("It is 42.")]},
    }
    for reason, row in unusable.items():
        with pytest.raises(formats.Unusable, match=reason):
            read(row)
    assert len(unusable) == 7


# --- splits


def many(path: Path, n: int, *, turns: bool = False) -> Path:
    """n preferences; with `turns`, prompt i repeats the opening of prompt i − i % 3."""
    rows = []
    for i in range(n):
        opening = f"What is {i - i % 3 if turns else i} plus one?"
        start = f"\n\nHuman: {opening}" + (f"\n\nAssistant: Guess.\n\nHuman: Guess {i}?" if turns and i % 3 else "")
        rows.append(
            {"chosen": f"{start}\n\nAssistant: It is {i + 1}.", "rejected": f"{start}\n\nAssistant: Who knows."}
        )
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize("turns", [False, True])
def test_no_prompt_is_in_two_splits(tmp_path: Path, turns: bool) -> None:
    """Exact sizes; ids, texts and even the opening words of conversations are in one split only; a seed decides."""
    path = many(tmp_path / "many.jsonl", 300, turns=turns)
    seen = set()
    for seed in range(3):
        source = files(preferences=[path], test_prompts=60, validation_prompts=40, seed=seed)
        openings = {s: {p.messages[0]["content"].lower() for p in source.prompts(s)} for s in SPLITS}
        sizes = {s: len({p.id for p in source.prompts(s)}) for s in SPLITS}
        assert (sizes["validation"], sizes["test"]) == (40, 60)
        assert sizes["train"] == (198 if turns else 200)  # 40 = 13 × 3 + 1: two of a conversation's three are left out
        assert sum(source.left_out.values()) == 200 - sizes["train"]
        assert not openings["train"] & openings["test"]
        assert not openings["train"] & openings["validation"]
        assert not openings["validation"] & openings["test"]
        assert all(p.split == s for s in SPLITS for p in source.prompts(s))
        assert {a.prompt.split for a in source.demonstrations()} == {"train"}
        assert all(p.prompt.split == s for s in SPLITS for p in source.pairs(s))
        assert source.prompts("test") == files(
            preferences=[path], test_prompts=60, validation_prompts=40, seed=seed
        ).prompts("test")
        seen.add(digest(sorted(openings["test"])))
    assert len(seen) == 3


def test_the_order_of_rows_does_not_decide(tmp_path: Path) -> None:
    path = many(tmp_path / "many.jsonl", 50)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(path.read_text().splitlines()[::-1]))
    a, b = (files(preferences=[p], test_prompts=9, validation_prompts=5) for p in (path, turned))
    assert [p.id for p in a.prompts("test")] == [p.id for p in b.prompts("test")]


def test_what_occurs_twice_is_merged() -> None:
    """Eight rows, two of them the bird again (one in other case): six prompts, the bird with two answers."""
    source = files(demonstrations=["prompt_completion.jsonl"])
    prompts = [p for s in SPLITS for p in source.prompts(s)]
    assert len(prompts) == len({p.id for p in prompts}) == 6
    bird = next(p for p in prompts if "bird" in p.text)
    assert list(source._asked[bird.id].answers) == [
        "The penguin cannot fly, but it swims very well.",
        "The ostrich runs instead.",
    ]
    assert source.pairs("train") == []


def test_a_demonstration_of_a_held_out_prompt_is_not_shown(tmp_path: Path) -> None:
    """The same questions in two files: those held out for measuring leave the demonstrations as well."""
    source = files(preferences=["preference.jsonl"], demonstrations=["preference.jsonl", "prompt_completion.jsonl"])
    held = {p.id for s in ("validation", "test") for p in source.prompts(s)}
    assert len(held) == 3
    assert not held & {a.prompt.id for a in source.demonstrations()}
    assert all(
        p.id in {q.prompt.id for s in SPLITS for q in source.pairs(s)} for s in ("test",) for p in source.prompts(s)
    )
    assert {a.prompt.kind for a in source.demonstrations()} == {"preference", "prompt_completion"}
    only = files(preferences=["preference.jsonl"])
    assert {a.text for a in only.demonstrations()} == {p.chosen for p in only.pairs("train")}


def test_the_web() -> None:
    source = files(preferences=["preference.jsonl"], web=["web.txt"], held_out_web=0.2)
    parts = {s: set(source.web(s)) for s in SPLITS}
    assert sum(map(len, parts.values())) == 30
    assert all(parts.values())
    assert "Page 0. The harbour wakes before the town does.\nBoats knock against the wall." in set().union(
        *parts.values()
    )
    assert files(preferences=["preference.jsonl"]).web("train") == []


def test_the_digest_follows_content_and_settings(tmp_path: Path) -> None:
    source = files(preferences=["preference.jsonl"])
    copy = tmp_path / "preference.jsonl"
    copy.write_bytes((FIXTURES / "preference.jsonl").read_bytes())
    assert source.digest() == files(preferences=[copy]).digest(), "where a file lies does not matter"
    others = {
        files(preferences=["preference.jsonl"], seed=1).digest(),
        files(preferences=["preference.jsonl"], limit=7).digest(),
        files(demonstrations=["preference.jsonl"]).digest(),
        source.digest(),
    }
    copy.write_text(copy.read_text().replace("windy", "sunny"))
    others.add(files(preferences=[copy]).digest())
    assert len(others) == 5


def test_limit_and_longest_prompt() -> None:
    assert len(everything(files(preferences=["preference.jsonl"], limit=5))["prompts"]) == 5
    short = files(preferences=["preference.jsonl"], longest_prompt=30)
    assert all(len(p.text) <= 30 for p in everything(short)["prompts"].values())
    assert short.left_out == {"a prompt above data.longest_prompt": 4}


# --- what every source gives


def test_the_world_is_a_source() -> None:
    """Both sources answer the same questions with the same kinds of things: no stage can tell which it has."""
    world = open_source(Data(), seed=3)
    assert isinstance(world, World)
    for source in (world, files(preferences=["preference.jsonl"], web=["web.txt"])):
        prompts = source.prompts("validation")
        assert prompts and all(p.split == "validation" for p in prompts)
        assert all(a.prompt.split == "train" for a in source.demonstrations()[:20])
        gold, grades = source.grade(prompts[0], "I am not sure.")
        assert gold is None or isinstance(gold, float)
        assert all(v in (None, 0.0, 1.0) for v in grades.values())
        assert {"refuses", "repetitive", "finished"} <= set(grades)
        assert source.few_shot().count("{prompt}") == 1
        assert source.name and source.digest() and isinstance(source.pairs("test"), list)
        with pytest.raises(LabError, match="train, validation, test"):
            source.prompts("dev")


def test_surface_grades() -> None:
    refusals = [
        "I'm sorry, but I can't help with that.",
        "I won't do that. It makes me uncomfortable.",
        "That is illegal, and I would rather talk about something else.",
        "I’m not able to find addresses for you.",
    ]
    answers = [
        "Oslo is the capital of Norway.",
        "I'm sorry to hear that. Try some ginger tea.",
        "You can't miss it: left at the church.",
        "Sorry, what did you say?",
    ]
    assert [surface(t)["refuses"] for t in refusals] == [1.0] * 4
    assert [surface(t)["refuses"] for t in answers] == [0.0] * 4
    assert surface("a b c a b c a b c.")["repetitive"] == 1.0  # 7 runs of three words, 3 of them distinct
    assert surface("Every word here stands only once, so nothing repeats.")["repetitive"] == 0.0
    assert surface("An end.")["finished"] == 1.0
    assert surface("An end.", ended=False)["finished"] == surface("no end")["finished"] == 0.0
    assert surface(" ") == {"refuses": None, "repetitive": None, "finished": 0.0}


# --- bad input


def refused(sentence: str, **settings: Any) -> None:
    with pytest.raises(LabError, match=sentence):
        source = files(**settings)
        source.digest()
        source.prompts("train")
        source.web("train")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = {"prompt": "Hi", "chosen": "Hello.", "rejected": "No."}
    line = json.dumps(good)
    contents: dict[str, tuple[str | bytes, str]] = {
        "empty.jsonl": ("\n\n", "empty.jsonl is empty"),
        "empty.json": ("[]", "is empty"),
        "broken.jsonl": (f"{line}\n{line[:-5]}\n", "broken.jsonl, line 2 is not JSON"),
        "broken.json": ("[\n" + line + ",\n{oops}]", "broken.json, line 3 is not JSON"),
        "list.jsonl": ("[1, 2]\n", "line 1 holds list"),
        "numbers.json": ("[1, 2]", "row 1 holds int"),
        "latin.jsonl": (json.dumps({"prompt": "é"}, ensure_ascii=False).encode("latin-1"), "not text in UTF-8"),
        "cut.jsonl.gz": (gzip.compress((line + "\n").encode() * 500)[:-20], "damaged or cut short"),
        "plain.jsonl.gz": (line, "damaged or cut short"),
        "fake.parquet": (line, "not a Parquet file"),
        "quote.csv": ('prompt,chosen,rejected\n"a,b,c\n', "from line 2 on, is not CSV"),
        "columns.jsonl": (json.dumps({"question": "Hi", "reply": "Hello."}), "question, reply. What is understood: .*Alpaca"),
        "ragged.jsonl": (f'{line}\n{{"prompt": "Hi", "chosen": "Hello."}}', "line 2 does not fit TRL preference"),
        "nothing.jsonl": (json.dumps({**good, "rejected": "Hello."}), "1 rows: no two different answers"),
        "notes.doc": ("Hello", "an ending that says nothing: .jsonl"),
    }  # fmt: skip
    for name, (content, sentence) in contents.items():
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        refused(sentence, preferences=[tmp_path / name])
    assert len(contents) == 15
    refused("did you mean .*broken.jsonl", preferences=[tmp_path / "brokn.jsonl"])
    refused("check the path", preferences=[tmp_path / "away" / "x.jsonl"])
    refused("is a folder", preferences=[tmp_path])


def test_settings_that_do_not_fit() -> None:
    refused("which has no pairs: name .* in data.demonstrations", preferences=["prompt_completion.jsonl"])
    refused("data.web needs plain text", preferences=["preference.jsonl"], web=["preference.jsonl"])
    refused("8 distinct prompts, too few to hold out 300 for test", preferences=["preference.jsonl"], test_prompts=300)
    refused("too few", preferences=["preference.jsonl"], test_prompts=7)  # 7 + 1 = 8: nothing to train on
    with pytest.raises(LabError, match="none is named"):
        open_source(Data(source="files"), seed=0)
    with pytest.raises(LabError, match="set data.source=files"):
        open_source(Data(preferences=["x.jsonl"]), seed=0)


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `load_dataset` is asked for, and a sentence for each way in which it fails. No network is touched."""
    import datasets

    rows = [json.loads(line) for line in (FIXTURES / "preference.jsonl").read_text().splitlines()]
    asked: list[dict[str, Any]] = []

    def load(path: str, name: str | None = None, **rest: Any) -> Any:
        asked.append({"path": path, "name": name, **rest})
        if name == "harmless-base":
            raise ValueError("BuilderConfig 'harmless-base' not found. Available: ['default']")
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = files(preferences=["preference.jsonl"])
    for name in ("ada/pairs", "ada/pairs:test", "ada/pairs/harmless-base:test"):
        hub = Files(Data(source="files", preferences=[name], test_prompts=2, validation_prompts=1), seed=0)
        assert everything(hub)["pairs"] == everything(source)["pairs"]
        assert hub.digest() == hub.digest()
    assert asked[0] == {"path": "ada/pairs", "name": None, "split": "train"}
    assert {"path": "ada/pairs", "name": None, "split": "test"} in asked
    assert {"path": "ada/pairs", "data_dir": "harmless-base", "name": None, "split": "test"} in asked
    assert (datafiles.stem("ada/pairs:test"), datafiles.stem("ada/pairs/harmless-base")) == (
        "pairs",
        "pairs-harmless-base",
    )

    from datasets.exceptions import DatasetNotFoundError

    failures: dict[str, Exception] = {
        "hub cannot be reached: check the connection": ConnectionError("Couldn't reach 'ada/pairs' on the Hub (OfflineModeIsEnabled)"),
        "is gated: accept its terms .* 'hf auth login'": DatasetNotFoundError("Dataset 'ada/pairs' is a gated dataset on the Hub."),
        "neither a file here nor a data set": DatasetNotFoundError("Dataset 'ada/pairs' doesn't exist on the Hub or cannot be accessed."),
        "Should be one of .*'train'": ValueError('Unknown split "tset". Should be one of [\'train\', \'test\'].'),
        "name its files instead": RuntimeError("Dataset scripts are no longer supported, but found pairs.py"),
        "cannot be loaded from the hub: KeyError": KeyError("surprise"),
    }  # fmt: skip
    for sentence, error in failures.items():

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", fail)
        refused(sentence, demonstrations=[Path("ada/pairs")])
    assert len(failures) == 6


def test_the_hub_is_really_out_of_reach() -> None:
    """The real library, offline as all tests are: the sentence above is what it leads to."""
    with pytest.raises(LabError, match="hub cannot be reached"):
        list(datafiles.rows("nobody-here/no-such-data"))
