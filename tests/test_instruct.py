"""Tasks and their definitions, the mixture, held-out tasks, and LoRA against PEFT and by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_lab
import torch
import yaml

from labkit import ask, chat, compare, imitation, models, sampling, sources, tasks, training
from labkit.errors import LabError
from labkit.lab import Lab
from labkit.records import Answer, Prompt, read_jsonl
from labkit.runs import Run
from labkit.stages import instruct
from labkit.world import World

torch.set_num_threads(1)
ROOM = {"model.context": 1024}  # the tests' tokenizer writes a definition in some hundred tokens


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=0)


def shown(kind: str, n: int, words: int = 3) -> list[Answer]:
    return [
        Answer(prompt=Prompt.of(f"{kind} {i}?", kind=kind), text="word " * words, author="a person") for i in range(n)
    ]


# ---- the book ------------------------------------------------------------------------------------


def test_the_book_knows_every_kind_of_the_world_and_its_examples_are_good(world: World) -> None:
    """Each example's question is one of the world's own, of its kind, and gold thinks well of the answer."""
    book = tasks.load()
    assert set(book.tasks) == {p.kind for p in world.prompts("train")}
    assert book.groups(world.demonstrations()) == {k: t.group for k, t in book.tasks.items()}
    for kind, task in book.tasks.items():
        assert len(task.examples) == 3 and task.do and task.avoid
        for example in task.examples:
            prompt = world.recognise(example.asked)
            assert prompt and prompt.kind == kind, example.asked
            assert world.grade(prompt, example.answered)[0] > 1.6, example.answered


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_no_example_is_a_held_out_question(seed: int) -> None:
    world = World(seed=seed)
    fair = tasks.load().without_held_out(world)
    asked = [e.asked for task in fair.tasks.values() for e in task.examples]
    assert all(world.recognise(text).split == "train" for text in asked)  # type: ignore[union-attr]
    assert 15 < len(asked) < 36
    held_out = {p.text for split in ("validation", "test") for p in world.prompts(split)}
    assert not held_out & set(asked)


def test_a_definition_stands_before_the_last_question_and_nothing_else_changes() -> None:
    book = tasks.load()
    talk = Prompt(
        id="1", kind="fact", meta={"a": 1}, split="validation",
        messages=({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Why?"}),
    )  # fmt: skip
    put = book.defined(talk)
    task, example = book.tasks["fact"], book.tasks["fact"].examples[0]
    assert put.text == (f"{task.definition} {task.do} {task.avoid}\nQ: {example.asked}\nA: {example.answered}\n\nWhy?")
    assert replace(put, messages=talk.messages) == talk and put.messages[:2] == talk.messages[:2]
    assert book.defined(talk, 1).text != put.text and book.defined(talk, 3) == put
    stranger = replace(talk, kind="typed")
    assert book.defined(stranger) is stranger
    bare = tasks.Book({"fact": tasks.Task(group="closed", definition="Say it.")})
    assert bare.defined(talk).text == "Say it.\n\nWhy?"


def test_a_book_comes_back_as_it_was_saved_and_asks_for_a_finished_run(tmp_path: Path) -> None:
    book, prompt = tasks.load(), Prompt.of("Why?", kind="fact")
    assert tasks.put(Run(tmp_path), prompt) is prompt
    book.save(tmp_path)
    assert tasks.load(tmp_path / "tasks.yaml").tasks == book.tasks
    assert tasks.put(Run(tmp_path), prompt) == book.defined(prompt)
    answerer = ask.Answerer("sft_definitions", Run(tmp_path), lambda: None)
    (tmp_path / "recipe.yaml").write_text("model: {context: 1024}")
    (tmp_path / "run.json").write_text(json.dumps({"stage": "instruct"}))
    tok = tiny_lab.tokenizer()
    assert answerer._query(tok, prompt, 8) == chat.prompt_ids(tok, book.defined(prompt))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"fact": {"group": "shut", "definition": "Say it."}}, "fact.group"),
        ({"fact": {"group": "closed"}}, "fact.definition"),
        ({"fact": {"group": "closed", "definition": "Say it.", "dont": "x"}}, "fact.dont"),
        ({"fact": {"group": "open", "definition": "Say it.", "examples": [{"asked": "Q?"}]}}, "answered"),
        (["a", "list"], "valid dictionary"),
    ],
)
def test_a_book_with_a_mistake_is_refused_in_a_sentence(tmp_path: Path, body: Any, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(LabError, match=said):
        tasks.load(tmp_path / "mine.yaml")


def test_a_book_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="instruct.book"):
        tasks.load(tmp_path / "absent.yaml")
    (tmp_path / "odd.yaml").write_text("a: [")
    with pytest.raises(LabError, match="no book"):
        tasks.load(tmp_path / "odd.yaml")


def test_a_kind_that_nobody_grouped_is_closed_where_its_answers_are_short() -> None:
    book = tasks.load()
    found = book.groups([*shown("label", 5, 1), *shown("essay", 5, 30), *shown("story", 1, 1)])
    assert found == {"label": "closed", "essay": "open", "story": "open"}


# ---- the mixture ---------------------------------------------------------------------------------


def test_shares_by_hand() -> None:
    assert tasks.shares({"a": 0.4, "b": 0.4, "c": 0.2}, 10) == {"a": 4, "b": 4, "c": 2}
    assert tasks.shares({"a": 1, "b": 1, "c": 1}, 8) == {"a": 3, "b": 3, "c": 2}
    for total in range(40):
        found = tasks.shares({"a": 5, "b": 0, "c": 1.7}, total)
        assert sum(found.values()) == total and found["b"] == 0 and abs(found["a"] - total * 5 / 6.7) < 1


GROUPS = {"fact": "closed", "which": "closed", "story": "open", "poem": "open", "harmful": "harmless"}
DEMONSTRATIONS = [a for kind, n in zip(GROUPS, (10, 20, 30, 5, 8), strict=True) for a in shown(kind, n)]


def settings(**more: Any) -> instruct.Settings:
    return instruct.Settings(**{"demonstrations": 100, **more})


def test_a_mixture_has_its_weights_and_takes_each_as_often_as_any_other() -> None:
    found = instruct.dataset(DEMONSTRATIONS, settings(), GROUPS, seed=0)
    assert Counter(GROUPS[a.prompt.kind] for a in found) == {"closed": 40, "open": 40, "harmless": 20}
    times = Counter(a.prompt.id for a in found)
    for group, pool in (("closed", 30), ("open", 35), ("harmless", 8)):
        mine = [n for i, n in times.items() if GROUPS[next(a for a in found if a.prompt.id == i).prompt.kind] == group]
        assert len(mine) == pool and max(mine) - min(mine) <= 1
    other = instruct.dataset(DEMONSTRATIONS, settings(mixture={"open": 1, "harmless": 3}), GROUPS, seed=0)
    assert Counter(GROUPS[a.prompt.kind] for a in other) == {"open": 25, "harmless": 75}


def test_runs_that_are_compared_read_the_same_demonstrations() -> None:
    one = instruct.dataset(DEMONSTRATIONS, settings(tasks="seen"), GROUPS, seed=3)
    assert one == instruct.dataset(DEMONSTRATIONS, settings(tasks="seen", definitions=True), GROUPS, seed=3)
    assert one != instruct.dataset(DEMONSTRATIONS, settings(tasks="seen"), GROUPS, seed=4)
    whole = instruct.dataset(DEMONSTRATIONS, settings(), GROUPS, seed=3)
    assert whole == instruct.dataset(DEMONSTRATIONS, settings(lora=True), GROUPS, seed=3)
    assert not {"which"} & {a.prompt.kind for a in one} and {a.prompt.kind for a in one} == {*GROUPS} - {"which"}
    assert {a.prompt.kind for a in instruct.dataset(DEMONSTRATIONS, settings(tasks="closed"), GROUPS, seed=3)} == {
        "fact",
        "which",
    }
    alone = instruct.dataset(DEMONSTRATIONS, settings(tasks="one", one="poem"), GROUPS, seed=3)
    assert len(alone) == 100 and len({a.prompt.id for a in alone}) == 5


@pytest.mark.parametrize("which", ["closed", "one", "seen"])
def test_data_of_one_kind_are_used_as_they_are_and_that_is_said(which: str) -> None:
    chats = shown("hh", 7, 40)
    s = settings(tasks=which, held_out=["hh"], demonstrations=10)
    kinds, note = instruct.wanted(s, {"hh": "open"})
    assert kinds == ["hh"] and note.startswith("These data have no") and "hh" in note
    assert len(instruct.dataset(chats, s, {"hh": "open"}, seed=0)) == 10
    assert len(instruct.dataset(chats, settings(mixture={"closed": 1}), {"hh": "open"}, seed=0)) == 100


def test_a_mixture_of_what_there_is_not_is_refused() -> None:
    for bad in ({"poems": 1.0}, {}, {"closed": 0.0}, {"closed": -1.0, "open": 2.0}):
        with pytest.raises(ValueError, match="mixture takes weights"):
            settings(mixture=bad)


def test_another_book_is_another_run_only_where_its_words_are_read(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    plans = []
    for change in (("", ""), ("a short story", "a long story"), ("group: closed", "group: open")):
        mine.write_text(tasks.SHIPPED.read_text(encoding="utf-8").replace(*change, 1))
        lab = Lab.open("smoke", {"instruct.book": str(mine)}, outputs=tmp_path)
        plans.append({n: lab.plan(n).id for n in ("sft_mixed", "sft_definitions")})
    first, reworded, regrouped = plans
    assert first["sft_mixed"] == reworded["sft_mixed"] != regrouped["sft_mixed"]
    assert len({p["sft_definitions"] for p in plans}) == 3


# ---- LoRA ----------------------------------------------------------------------------------------


def test_adapters_train_a_fraction_of_the_weights_and_merge_into_the_same_model(tok: Any, tmp_path: Path) -> None:
    """W' = W + 2 B A, of rank r in every linear layer and nowhere else; merged, saved and loaded it says the same."""
    job = tiny_lab.job(tmp_path, "sft_lora", {"instruct.batch": 2, "instruct.epochs": 3})
    start, rank = tiny_lab.policy(tok), 2
    before = {k: v.clone() for k, v in start.state_dict().items()}
    shown = [Answer(prompt=Prompt.of(q), text=good, author="p") for q, good, _ in tiny_lab.PAIRS]
    rows = imitation.dataset(shown, tok, context=96)
    fit = imitation.trainer(job, start, tok, rows, lora=rank, learning_rate=0.05)
    assert fit.args.learning_rate == 0.05
    linear = [m for n, m in start.named_modules() if isinstance(m, torch.nn.Linear) and "lora" not in n]
    trained = {n: w for n, w in fit.model.named_parameters() if w.requires_grad}
    layers = [m for m in linear if m is not start.get_output_embeddings()]
    assert sum(w.numel() for w in trained.values()) == sum(rank * (m.in_features + m.out_features) for m in layers)
    training.train(fit)
    tuned = training.released(fit)
    a, b = ({n.split(".lora_")[0]: w.detach().clone() for n, w in trained.items() if f"lora_{x}" in n} for x in "AB")
    queries, answers = ([chat.answer_ids(tok, s.prompt, s.text)[i] for s in shown] for i in (0, 1))
    said = torch.cat(sampling.score_logps(tuned, queries, answers))
    models.save(tuned, tok, tmp_path)
    again, _ = models.load(tmp_path / "model", device="cpu")
    assert torch.allclose(torch.cat(sampling.score_logps(again, queries, answers)), said, atol=1e-4)
    moved = {k: v - before[k] for k, v in again.state_dict().items()}
    names = {n.removeprefix("base_model.model.") + ".weight" for n in a}
    assert {k for k, v in moved.items() if v.abs().max() > 1e-6} == names
    for name in a:
        change = moved[name.removeprefix("base_model.model.") + ".weight"]
        assert torch.allclose(change, 2 * b[name] @ a[name], atol=1e-5)
        assert torch.linalg.matrix_rank(change, tol=1e-4) <= rank


def test_without_a_rank_of_its_own_the_recipes_adapters_count(tok: Any, tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "sft_mixed", {"model.lora": 3})
    rows = imitation.dataset([Answer(prompt=Prompt.of("Who?"), text="Fish.", author="p")], tok, context=96)
    for lora, rank in ((0, 3), (5, 5)):
        fit = imitation.trainer(job, tiny_lab.policy(tok), tok, rows, lora=lora)
        assert fit.model.peft_config["default"].r == rank and fit.model.peft_config["default"].lora_alpha == 2 * rank
    job.close()


# ---- the stage, on a small model -----------------------------------------------------------------


def made(tok: Any, folder: Path, name: str, overrides: dict[str, Any], source: Any = None) -> Run:
    job = tiny_lab.job(folder, name, {**ROOM, "instruct.demonstrations": 12, "answers.max_tokens": 6, **overrides})
    job.parents["pretrain"] = tiny_lab.save(tiny_lab.policy(tok, context=1024), tok, folder / "pretrain")
    if source:
        job.lab.source = source
    instruct.run(job)
    job.close()
    manifest = {"id": job.id, "name": name, "stage": "instruct", "summary": job.summary, "cost": job.cost, "files": {}}
    (job.folder / "run.json").write_text(json.dumps(manifest | {"phases": job.phases, "settings": {}}))
    return Run(job.folder)


def test_questions_with_definitions_are_stored_as_they_were(tok: Any, tmp_path: Path) -> None:
    """The same prompts, in the same order, as every other model's; the book lies beside the weights."""
    with_, without = (made(tok, tmp_path / n, n, {}) for n in ("sft_definitions", "sft_held_out"))
    asked = [[a.prompt for a in run.answers()] for run in (with_, without)]
    assert asked[0] == asked[1] and len({p.id for p in asked[0]}) == 48
    assert all(a.kl is None and "gold" in a.scores for a in with_.answers())
    assert (with_.path / "tasks.yaml").exists() and not (without.path / "tasks.yaml").exists()
    assert with_.manifest["cost"]["targets"] == without.manifest["cost"]["targets"]
    assert with_.manifest["cost"]["tokens"] > 3 * without.manifest["cost"]["tokens"]
    assert not {"which", "description", "advice"} & set(with_.summary["kinds"]) and "note" not in with_.summary


def test_a_definition_is_read_and_never_trained_on(tok: Any) -> None:
    book, answer = tasks.load(), Answer(prompt=Prompt.of("Who?", kind="fact"), text="Fish.", author="p")
    defined = replace(answer, prompt=book.defined(answer.prompt))
    rows = [imitation.dataset([a], tok, context=1024)[0] for a in (answer, defined)]
    counted = [[t for t, m in zip(r["input_ids"], r["completion_mask"], strict=True) if m] for r in rows]
    assert counted[0] == counted[1] and len(rows[1]["input_ids"]) > len(rows[0]["input_ids"]) + 50


def test_real_data_of_one_kind_go_through(tok: Any, tmp_path: Path) -> None:
    """No gold, no web, no book for its kind: it is tuned and measured all the same, and says what was missing."""
    file = tmp_path / "chat.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"Question {i}?", "completion": "a long answer " * 5}) + "\n" for i in range(30))
    )
    data = sources.Data(source="files", demonstrations=[str(file)], validation_prompts=4, test_prompts=4)
    source = sources.open_source(data, seed=0)
    run = made(tok, tmp_path / "out", "sft_task", {}, source)
    assert run.summary["note"].startswith("These data have no task 'story'") and run.summary["kinds"] == ["chat"]
    assert run.summary["groups"] == {"chat": "open"} and run.summary["distinct"] == 12
    assert len(list(read_jsonl(run.path / "answers.jsonl"))) == 16
    none = SimpleNamespace(demonstrations=list)
    with pytest.raises(LabError, match="no demonstration to imitate"):
        made(tok, tmp_path / "none", "sft_mixed", {}, none)


def test_groups_and_differences_are_those_of_the_prompts(tmp_path: Path) -> None:
    """Four prompts by hand: closed +1, −1 and open +3; a kind in no group is in no column."""
    golds = {"a": (1.0, 0.0, 4.0, 9.0), "b": (0.0, 1.0, 1.0, 0.0)}
    prompts = [Prompt.of(str(i), kind=k, split="validation") for i, k in enumerate(("fact", "fact", "poem", "odd"))]
    answers = {
        who: {
            p.id: (Answer(prompt=p, text="x", author=who, scores={"gold": g}),)
            for p, g in zip(prompts, values, strict=True)
        }
        for who, values in golds.items()
    }
    (tmp_path / "run.json").write_text(
        json.dumps({"id": "a-1", "summary": {"weights": 100, "weights_trained": 25}, "phases": {"train": 2.5}})
    )
    c = compare.Comparison(
        split="validation",
        score="gold",
        reference="b",
        prompts=tuple(prompts),
        answers=answers,
        runs={"a": Run(tmp_path)},
    )
    groups = {"poem": "open", "fact": "closed"}
    [row] = tasks.differences(c, groups, [("a", "b"), ("a", "absent")])
    assert (row["closed"], row["closed_ci"], row["closed_n"]) == (0.0, [-1.0, 1.0], 2)
    assert (row["open"], row["open_n"]) == (3.0, 1) and "odd" not in row
    assert list(row)[2] == "closed", "in the order of the groups, not of the prompts"
    first, second = tasks.by_group(c, groups)
    assert (first["stage"], first["closed"], second["open"]) == ("a", 0.5, 1.0)
    [cost] = instruct.trained(c, ["a", "absent"])
    assert (cost["weights"], cost["share"], cost["seconds"]) == (25, 0.25, 2.5)
    assert cost["gold"] == np.mean(golds["a"])
