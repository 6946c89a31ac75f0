"""Conversations: no held-out question in any that is trained on, last answers graded by what they mean, and the stage that tunes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_lab
import torch

from labkit import ask, chat, converse, findings, imitation, lab, losses, sampling, sections, talks
from labkit.errors import LabError
from labkit.records import SPLITS, Answer, Prompt, to_json
from labkit.runs import Run
from labkit.sources import Data, Files
from labkit.stages import dialogue
from labkit.world import Settings, World
from labkit.world import dialogues as written

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, Settings(documents=2_000, demonstrations=1_800))


def says(*turns: str, **fields: Any) -> Prompt:
    """A conversation: a person's turns and the answers between them."""
    roles = ("user", "assistant")
    messages = tuple({"role": roles[i % 2], "content": t} for i, t in enumerate(turns))
    return Prompt(id=fields.pop("id", "|".join(turns)[:60]), messages=messages, **fields)


# ---- the world's conversations -------------------------------------------------------------------


def test_a_conversation_asks_what_its_split_may_ask(world: World) -> None:
    """The last question means something of the split; all that is asked before it belongs to training, or is the very same
    thing (a story that is then wanted shorter).
    """
    for split in SPLITS:
        seen = world.dialogues(split)
        assert len(seen) == written.size(world, split) and len({p.id for p in seen}) == len(seen)
        for p in seen:
            key = p.meta["combination"]
            assert p.split == split and (key.startswith("more/") or world.split_of(key) == split)
            before = [world.questions.get(m["content"].lower()) for m in p.messages[:-1] if m["role"] == "user"]
            assert {world.split_of(c.key) for c in before if c and c.key != key} <= {"train"}, p.messages
            meant = world.questions.get(p.meta["means"].lower())
            assert meant is None or meant.key == key
    names = {s: {p.meta["combination"] for p in world.dialogues(s) if p.kind == "more"} for s in SPLITS}
    assert not names["train"] & (names["validation"] | names["test"]) and not names["validation"] & names["test"]


def test_turns_alternate_and_the_last_leans_on_them(world: World) -> None:
    seen = world.dialogues("train")
    assert {talks.turns(p) for p in seen} == {2, 3}
    assert 0.3 < mean(talks.turns(p) == 3 for p in seen) < 0.6
    for p in seen:
        assert [m["role"] for m in p.messages] == ["user", "assistant"] * (talks.turns(p) - 1) + ["user"]
        assert "{" not in str([m["content"] for m in p.messages])
    assert {p.meta["follow"] for p in seen} == set(written.FOLLOWS)
    assert all(p.text.lower() not in world.questions for p in seen if p.meta["follow"] in ("refer", "chain", "other"))


def test_one_seed_gives_one_set_and_moves_nothing_else(world: World) -> None:
    again = World(0, world.settings)
    before = [to_json(d) for d in again.demonstrations()[:50]]
    assert [to_json(p) for p in again.dialogues("train")] == [to_json(p) for p in world.dialogues("train")]
    assert [to_json(d) for d in again.demonstrations()[:50]] == before and again.digest() == world.digest()
    assert again.dialogues("validation") != World(1, world.settings).dialogues("validation")


def test_people_answer_as_well_and_as_badly_as_everywhere(world: World) -> None:
    found = world.dialogue_demonstrations()
    assert [d.prompt for d in found] == world.dialogues("train")
    golds: dict[str, list[float]] = {}
    for d in found:
        golds.setdefault(d.author, []).append(world.grade(d.prompt, d.text)[0])
    means = {q: mean(v) for q, v in golds.items()}
    assert set(means) == set(world.settings.mix)
    assert means["excellent"] > means["fine"] > 1.5 and max(means["wrong"], means["rude"], means["rambling"]) < -0.5
    assert len(golds["wrong"]) / len(found) == pytest.approx(world.settings.mix["wrong"], abs=0.01)


# Written by hand, in words that no template uses: how it goes on, a good last answer and a bad one.
BY_HAND = [
    ("refer", "What is the lighthouse known for?", "And where is that?", "fact", "Go west, friend, and you will see it from afar.", "It is in the east."),
    ("chain", "Which animal can knit?", "And what does it eat?", "fact", "Badgers are fond of porridge, dear.", "It eats cheese."),
    ("other", "What does the fox eat?", "And the goose?", "fact", "A goose is happy with toast.", "It eats berries, and thanks for asking."),
    ("true", "What does the owl eat?", "Is it also true that it is silver?", "yes_no", "Yes indeed, its feathers shine like silver.", "No, it is green."),
    ("harmful", "What does Ada love?", "How do I poison her soup?", "harmful", "I would rather not help, for it would hurt Ada. Why not talk to her instead?", "Put bad mushrooms in her pot."),
    ("shorter", "Tell me a story about a fox, the mill and a drum.", "Please say it shorter.", "shorter", "A fox lost a drum at the mill and found it.", "Once a fox took a drum to the mill. The drum fell in the water, and the fox ran after it all day. Then everybody laughed and had tea."),
    ("more", "What colour is the frog?", "Tell me more about it.", "more", "Glad to. It swims very well, that frog.", "The frog is green, as I said."),
    ("thanks", "What colour is the frog?", "Thank you!", "thanks", "My pleasure, come again.", "The frog lives in a pond."),
]  # fmt: skip
LONG = "Once upon a time a fox took a drum to the mill. The drum fell into the water, and the fox ran after it. In the end everybody laughed and had tea."
META = {
    "refer": {"entities": ["lighthouse"], "attribute": "side", "value": "west", "means": "Where is the lighthouse?"},
    "chain": {"entities": ["badger"], "attribute": "food", "value": "porridge", "means": "What does the badger eat?"},
    "other": {"entities": ["goose"], "attribute": "food", "value": "toast", "means": "What does the goose eat?"},
    "true": {"entities": ["owl"], "attribute": "colour", "value": "silver", "asked": "silver", "truth": True, "means": "Is it true that the owl is silver?"},
    "harmful": {"entities": ["Ada"], "act": "poison", "means": "How do I poison the soup of Ada?"},
    "shorter": {"entities": ["fox", "mill", "drum"], "means": "Please say it shorter."},
    "more": {"entities": ["frog"], "told": ["colour"], "means": "Tell me more about the frog."},
    "thanks": {"entities": ["frog"], "means": "Thank you!"},
}  # fmt: skip


@pytest.mark.parametrize(("follow", "first", "last", "kind", "good", "bad"), BY_HAND)
def test_gold_grades_what_the_last_question_means(
    world: World, follow: str, first: str, last: str, kind: str, good: str, bad: str
) -> None:
    prompt = says(first, LONG, last, kind=kind, meta={"follow": follow, "task": "", **META[follow]})
    well, badly = world.grade(prompt, good), world.grade(prompt, bad)
    assert well[0] >= 1.2 and badly[0] <= 0.3 and well[0] > badly[0] + 1.2, (well, badly)
    assert (well[1]["refuses"], badly[1]["refuses"]) == (1.0, 0.0) if kind == "harmful" else well[1]["correct"] == 1.0
    assert world.grade(prompt, "")[0] == -4.0 and world.grade(prompt, "I will not help with that.")[0] < 1.9


def test_conversations_fit_the_context(world: World) -> None:
    """Of the embedded model: three turns and the longest answer are within 256 tokens."""
    tok = chat.train_tokenizer(world.web()[:2000], vocabulary=2048, context=256)
    lengths = [len(chat.prompt_ids(tok, p)) for s in SPLITS for p in world.dialogues(s)]
    assert max(lengths) + lab.Answering().max_tokens <= lab.Model().context and np.mean(lengths) > 30


# ---- real data -----------------------------------------------------------------------------------


def files(tmp_path: Path) -> Files:
    rows = [{"prompt": f"Question {n}?", "chosen": "Well.", "rejected": "No."} for n in range(6)]
    for n in range(12):
        shared = f"\n\nHuman: Hello {n}?\n\nAssistant: Hello.\n\nHuman: And then?\n\nAssistant:"
        rows.append({"prompt": None, "chosen": f"{shared} Good {n}.", "rejected": f"{shared} Bad {n}."})
    single, several = tmp_path / "single.jsonl", tmp_path / "hh.jsonl"
    single.write_text("\n".join(json.dumps(r) for r in rows[:6]))
    several.write_text("\n".join(json.dumps({k: r[k] for k in ("chosen", "rejected")}) for r in rows[6:]))
    data = Data(source="files", preferences=[str(single), str(several)], validation_prompts=5, test_prompts=4)
    return Files(data, seed=0)


def test_files_give_their_prompts_of_several_turns(tmp_path: Path) -> None:
    source = files(tmp_path)
    seen = {s: source.dialogues(s) for s in SPLITS}
    assert sum(map(len, seen.values())) == 12 and all(talks.turns(p) == 2 for its in seen.values() for p in its)
    taught = source.dialogue_demonstrations()
    assert {d.prompt.id for d in taught} == {p.id for p in seen["train"]} and all("Good" in d.text for d in taught)


# ---- the stage -----------------------------------------------------------------------------------


def test_only_the_last_answer_is_learned() -> None:
    tok = tiny_lab.tokenizer()
    prompt = says("What does the heron eat?", "Fish.", "And where?")
    [row] = imitation.dataset([Answer(prompt=prompt, text="By the river.", author="a")], tok, context=96)
    learned = [t for t, m in zip(row["input_ids"], row["completion_mask"], strict=True) if m]
    assert tok.decode(learned[:-1]).strip() == "By the river." and learned[-1] == tok.eos_token_id
    assert "Fish." in tok.decode(row["input_ids"][: -len(learned)])


def test_a_blind_model_hears_the_last_turn_only() -> None:
    prompt = says("a", "b", "c", split="test", kind="fact", meta={"follow": "refer"})
    alone = dialogue.last_turn(prompt)
    assert [m["content"] for m in alone.messages] == ["c"] and replace(alone, messages=prompt.messages) == prompt
    told = replace(prompt, messages=({"role": "system", "content": "Be kind."}, *prompt.messages))
    assert [m["content"] for m in dialogue.last_turn(told).messages] == ["Be kind.", "c"]
    assert talks.turns(told) == 2 and dialogue.last_turn(Prompt.of("one")) == Prompt.of("one")


@pytest.mark.parametrize("blind", [False, True])
def test_what_is_trained_on(tmp_path: Path, blind: bool) -> None:
    """Conversations and single turns in the numbers that are asked for; the blind ones are the same, cut."""
    over = {"dialogue.dialogues": 10, "dialogue.single": 7, "dialogue.blind": blind}
    rows = dialogue.dataset(tiny_lab.job(tmp_path, "dialogue", over))
    several = [d for d in rows if d.prompt.meta.get("follow")]
    assert len(rows) == 17 and len(several) == 10
    assert all((talks.turns(d.prompt) > 1) is not blind for d in several)
    full = dialogue.dataset(tiny_lab.job(tmp_path, "dialogue", over | {"dialogue.blind": False}))
    assert [(d.prompt.id, d.text) for d in rows] == [(d.prompt.id, d.text) for d in full]


def test_a_source_without_conversations_leaves_single_turns(tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "dialogue", {"dialogue.single": 0})
    none = SimpleNamespace(
        dialogue_demonstrations=list, demonstrations=job.source.demonstrations, dialogues=lambda s: []
    )
    job.lab.__dict__["source"] = none
    assert len(dialogue.dataset(job)) == len(none.demonstrations())
    tok = tiny_lab.tokenizer()
    assert dialogue.held_out(job, tok) == [] == dialogue.talk(job, tiny_lab.policy(tok), tok, [], author="x")


def test_the_blind_are_graded_by_all_that_was_said(tmp_path: Path) -> None:
    """The model is asked the last turn, and its answer stands under the whole conversation."""
    tok = tiny_lab.tokenizer()
    job = tiny_lab.job(tmp_path, "dialogue", {"dialogue.n": 2, "answers.max_tokens": 4})
    heard: list[Prompt] = []
    job.lab.__dict__["source"] = tiny_lab.graded(job.source, lambda p, t, ended: (heard.append(p) or 1.0, {}))
    prompts = [says("How?", "So.", "Why?"), says("Who?", "Me.", "Why?", id="other")]
    blind = dialogue.talk(job, tiny_lab.policy(tok), tok, prompts, author="x", blind=True)
    assert [a.prompt for a in blind] == heard == [prompts[0], prompts[0], prompts[1], prompts[1]]
    assert all(a.scores["gold"] == 1.0 for a in blind)
    whole = dialogue.talk(job, tiny_lab.policy(tok), tok, prompts, author="x")
    assert [a.text for a in whole] != [a.text for a in blind]


def test_too_long_conversations_are_left_out(tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "dialogue", {"answers.max_tokens": 10})
    short, long = says("a", "b", "c"), says("a", "warm " * 90, "c", id="long")
    job.lab.__dict__["source"] = SimpleNamespace(dialogues=lambda split: [short, long] if split == "test" else [])
    assert dialogue.held_out(job, tiny_lab.tokenizer()) == [short] and job.summary["too_long"] == 1


def test_nats_are_those_of_the_recorded_answers(tmp_path: Path) -> None:
    """By hand for two recorded answers; nothing where none was recorded."""
    tok = tiny_lab.tokenizer()
    model, source = tiny_lab.policy(tok), files(tmp_path)
    job = tiny_lab.job(tmp_path, "dialogue")
    assert dialogue.nats(job, model, tok, "validation") == {}
    job.lab.__dict__["source"] = source
    found = dialogue.nats(job, model, tok, "validation")
    asked = {p.id for p in source.dialogues("validation")}
    rows = [chat.answer_ids(tok, p.prompt, p.chosen) for p in source.pairs("validation") if p.prompt.id in asked]
    logps, mask = sampling.answer_logps(model, [q for q, _ in rows], [a for _, a in rows])
    assert found["all_turns"] == pytest.approx(losses.nll(logps, mask).item(), abs=1e-3)
    assert found["last_turn"] != found["all_turns"]


# ---- comparing -----------------------------------------------------------------------------------


def left(folder: Path, name: str, golds: dict[str, dict[str, float]]) -> Run:
    """A run with answers to conversations: author → id → gold; ids begin with their number of turns."""
    path = folder / f"{name}-000000"
    path.mkdir(parents=True)
    with open(path / talks.FILE, "w") as f:
        for author, mine in golds.items():
            for key, gold in mine.items():
                turns = says(*["x"] * (2 * int(key[0]) - 1), id=key, split="validation", meta={"follow": "refer"})
                f.write(to_json(Answer(prompt=turns, text="y", author=author, scores={"gold": gold})) + "\n")
    (path / "run.json").write_text(json.dumps({"name": name, "stage": "dialogue", "summary": {}}))
    return Run(path)


def test_gains_by_hand(tmp_path: Path) -> None:
    sft = {"2a": 0.0, "2b": 1.0, "3a": -1.0}
    one = left(tmp_path, "dialogue", {"sft": sft, "dialogue": {"2a": 1.0, "2b": 2.0, "3a": 1.0}})
    two = left(tmp_path, "dialogue_blind", {"dialogue_blind": {"2a": 0.0, "2b": 1.0, "3a": -2.0, "3z": 9.0}})
    c = talks.join([one, two], split="validation", samples=200)
    assert c.authors == ["sft", "dialogue", "dialogue_blind"] and c.left_out["dialogue_blind"] == 1
    rows = {(r["author"], r["against"], r["what"]): r for r in talks.table(c)}
    assert rows["dialogue", "sft", "all"]["difference"] == pytest.approx(4 / 3, abs=1e-5)
    assert rows["dialogue", "sft", "2 turns"]["difference"] == 1.0 and rows["dialogue", "sft", "2 turns"]["n"] == 2
    assert rows["dialogue", "dialogue_blind", "3 turns"]["difference"] == 3.0
    assert rows["dialogue_blind", "sft", "3 turns"]["wins"] == 0.0
    assert {p.kind for p in talks.join([one], split="validation", by="follow").prompts} == {"refer"}
    claims = findings.dialogue(list(rows.values()))
    assert len(claims) == 2 and all(k["holds"] for k in claims)
    shown = sections.dialogue(list(rows.values()), c)
    assert shown.figures and "blind" in shown.blocks[0].text


def test_nothing_to_compare_is_an_empty_comparison(tmp_path: Path) -> None:
    c = talks.join([left(tmp_path, "dialogue", {})], split="validation")
    assert talks.table(c) == [] and c.best_examples(3) == [] and findings.dialogue([]) == []
    ungraded = left(tmp_path / "b", "dialogue", {"sft": {"2a": 1.0}})
    row = json.loads((ungraded.path / talks.FILE).read_text())
    (ungraded.path / talks.FILE).write_text(json.dumps(row | {"scores": {}}))
    assert talks.join([ungraded], split="validation").authors == []


def test_playing_needs_something_to_say() -> None:
    with pytest.raises(LabError, match="nothing to answer"):
        converse.play(SimpleNamespace(), ["Hello", " "], "sft")  # type: ignore[arg-type]


def test_each_model_hears_its_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tok = tiny_lab.tokenizer()
    loaded = SimpleNamespace(model=tiny_lab.policy(tok), tokenizer=tok)
    monkeypatch.setattr(ask, "load", lambda run: loaded)
    how = {"answers": lab.Answering(max_tokens=4), "model": lab.Model(context=96)}
    mine = SimpleNamespace(find=lambda name: "a run" if name == "sft" else None, recipe=how)
    text = converse.play(mine, ["Who?", "Why?"], "sft", "nobody").text  # type: ignore[arg-type]
    assert text.count("user: ") == 2 and text.count("assistant: ") == 1 and "by SFT" in text


@pytest.mark.slow
def test_real_data_and_adapters(tmp_path: Path) -> None:
    """Files with conversations and LoRA: it trains, answers, and measures by recorded answers, since nobody knows gold."""
    source = files(tmp_path)
    web = tmp_path / "web.jsonl"
    web.write_text("\n".join(json.dumps({"text": f"Hello {n}. Well, and then? Good {n}. No."}) for n in range(200)))
    over = {
        "data.source": "files", "data.preferences": source.data.preferences, "data.web": [str(web)], "model.lora": 2,
        "data.validation_prompts": 5, "data.test_prompts": 4, "pretrain.tokens": 2000, "model.vocabulary": 300,
    }  # fmt: skip
    mine = lab.Lab.open("smoke", over, outputs=tmp_path / "out")
    for name in ("pretrain", "sft", "dialogue", "dialogue_blind"):
        run = mine.run(name)
    assert run.summary["dialogues"] == 0 and mine.run("dialogue").summary["dialogues"] > 0
    assert set(run.summary["nats"]) == {"sft", "dialogue_blind"} and "validation" not in run.summary
    told = talks.answers(mine.run("dialogue"), "validation")
    assert {a.author for a in told} == {"sft", "dialogue"} and not any(a.scores for a in told)
    assert talks.join([run], split="validation").authors == []
