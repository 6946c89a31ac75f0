"""The likeness of two lines, the filters and their funnel, other wordings, what is read, the textbook; then the stages, small."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_lab
import torch

from labkit import answers, models, synthetic
from labkit.errors import LabError
from labkit.records import Answer, Prompt, read_jsonl
from labkit.runs import Run
from labkit.stages import pretrain, self_instruct, textbook

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


# ---- how like two lines are ----------------------------------------------------------------------


def by_table(a: list[str], b: list[str]) -> float:
    """ROUGE-L by the textbook's table of the longest common subsequence."""
    best = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best[i + 1, j + 1] = best[i, j] + 1 if x == y else max(best[i, j + 1], best[i + 1, j])
    return 2 * best[-1, -1] / max(1, len(a) + len(b))


def test_rouge_l_by_hand() -> None:
    """Four of five words in order: 2·4 / 10. Turned round, only one word stands in order. Case and marks do not count."""
    seen = synthetic.Seen(["What does the heron eat?", "eat heron the does what", "Mend a bucket!"])
    assert seen.rouge_l("what does the BADGER eat") == pytest.approx([0.8, 0.2, 0.0])
    assert seen.nearest("what does the BADGER eat") == (pytest.approx(0.8), "What does the heron eat?")
    assert synthetic.Seen().nearest("anything") == (0.0, "")


def test_rouge_l_is_that_of_the_table() -> None:
    """300 random texts of up to 60 words from a small vocabulary, against the table cell by cell."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefg", k=rng.randint(0, synthetic.WORDS))) for _ in range(300)]
    seen = synthetic.Seen(texts)
    for text in texts[:12]:
        table = [by_table(synthetic.words(text), synthetic.words(other)) for other in texts]
        assert seen.rouge_l(text) == pytest.approx(table)


def test_a_threshold_counts_against_all_that_was_kept_before() -> None:
    """The second is like the first, the third only like the second: once the second is gone, the third may stay."""
    texts = ["a b c d", "a b c e", "a b f e"]
    assert synthetic.survivors(texts, [], 0.75) == 2  # .75, then .5 to the first
    assert synthetic.survivors(texts, [], 1.0) == 3
    assert synthetic.survivors(texts, ["a b c d"], 0.5) == 0


# ---- the filters ---------------------------------------------------------------------------------


def test_a_list_is_cut_into_its_questions() -> None:
    assert self_instruct.lines("Who sleeps?\nQ: Where?\nA: Here.\nQ: And wh", ended=False) == (
        ["Who sleeps?", "Where?"],
        2,
    )
    assert self_instruct.lines("Who sleeps?\nQ: Where?", ended=True) == (["Who sleeps?", "Where?"], 0)
    assert self_instruct.lines("Who sl", ended=False) == ([], 1)
    assert self_instruct.lines("Who?\nA: He", ended=False) == (["Who?"], 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Where does the badger sleep?", ""),
        ("Where does the badger", "no sentence"),
        ("", "no sentence"),
        ("Is it so? A: Yes.", "no sentence"),
        ("the fox the fox the fox the fox the fox the fox?", "no sentence"),
        ("Why me?", "too short or long"),
        (f"{' '.join('abcdefghijklmnopqrstuvwxyzäöüßé')}?", "too short or long"),
        ("what DOES the heron  eat?", "stood already"),
        ("Who mends the bucket of Ada?", "leaks"),
        ("What does the old heron eat?", "too similar"),
    ],
)
def test_each_filter_takes_what_it_is_for(text: str, why: str) -> None:
    seen = synthetic.Seen(["What does the heron eat?"])
    taken, held_out = {"what does the heron eat?"}, {"who mends the bucket of ada?"}
    found = self_instruct.sieve(text, seen, taken, held_out, self_instruct.Settings())
    assert found == (why, "What does the heron eat?" if why == "too similar" else "")


def test_the_funnel_adds_up() -> None:
    rows = [{"thrown_by": w} for w in ("", "", "leaks", "too similar", "too similar", "answer repeats")]
    table = self_instruct.funnel(rows)
    assert table[0] == {"filter": "written", "thrown": 0, "left": 6} and table[-1]["left"] == 2
    assert {r["filter"]: r["thrown"] for r in table if r["thrown"]} == {
        "leaks": 1,
        "too similar": 2,
        "answer repeats": 1,
    }
    assert all(a["left"] - b["thrown"] == b["left"] for a, b in zip(table, table[1:], strict=False))


def test_seeds_are_short_and_each_to_a_prompt_of_its_own() -> None:
    good = [Answer(prompt=Prompt.of(f"Who is {i // 2}?"), text="A badger.", author="p", n=i) for i in range(8)]
    odd = [
        Answer(prompt=Prompt.of("Two\nlines?"), text="No.", author="p"),
        Answer(prompt=Prompt.of("Long?"), text="x" * 300, author="p"),
    ]
    assert [a.n for a in self_instruct.chosen([*odd, *good], 3)] == [0, 2, 4]
    with pytest.raises(LabError, match="short enough"):
        self_instruct.chosen(odd, 3)


def test_everything_is_read_before_anything_is_read_again() -> None:
    seeds = [Answer(prompt=Prompt.of(f"Who is {i}?"), text="A badger.", author="p") for i in range(4)]
    rows = [{"instruction": f"What is {i}?", "answer": "A heron."} for i in range(6)]
    read = [a.prompt.text for a in self_instruct.dataset(seeds, rows, 25, seed=0)]
    assert len(read) == 25 and len(set(read[:10])) == len(set(read[10:20])) == 10 and read[:10] != read[10:20]
    assert {a.author for a in self_instruct.dataset(seeds, [], 9, seed=0)} == {"p"}


# ---- other wordings ------------------------------------------------------------------------------


def test_a_splice_is_the_beginning_of_one_and_the_rest_of_the_other() -> None:
    others = ["What is the best way to paint a hat?", "Who sleeps?", "How do I paint a clock?"]
    found = synthetic.splices("How do I paint a clock?", others, count=5, rng=random.Random(0))
    assert found == ["What is the best way to paint a clock?"]
    assert synthetic.splices("Who sleeps?", others, count=5, rng=random.Random(0)) == []


def test_text_logps_are_those_of_the_whole_model(tok: Any) -> None:
    model = tiny_lab.policy(tok)
    whole, found = synthetic.text_logps(model, tok, ["The heron eats", "Why"], ["fish", "the quiet hill"])
    for before, text, value in zip(["The heron eats", "Why"], ["fish", "the quiet hill"], found, strict=True):
        first, then = (tok(t, add_special_tokens=False)["input_ids"] for t in (before, f" {text}\n"))
        logits = model(input_ids=torch.tensor([first + then])).logits[0, len(first) - 1 : -1]
        assert value == pytest.approx(-torch.nn.functional.cross_entropy(logits, torch.tensor(then)).item(), abs=1e-4)
        assert whole[0] == pytest.approx(found[0] * len(tok(" fish\n")["input_ids"]), abs=1e-4)


def test_a_wording_is_kept_only_if_it_reads_well_and_calls_for_the_same_answer(
    tmp_path: Path, tok: Any, monkeypatch: Any
) -> None:
    """Answers lose .05 and .5 nats a token; one wording leaks, one stands already, one is 3 nats less likely than its own."""
    rows = [{"instruction": f"{n} mend a {n}?", "answer": n} for n in ("one", "two", "three", "four", "five")]
    wordings = {"one": "ONE", "two": "TWO", "three": "held out", "four": "one mend a one?", "five": "FIVE"}
    monkeypatch.setattr(synthetic, "splices", lambda t, *a, **k: [wordings[t.split()[0]]])
    monkeypatch.setattr(answers, "evaluation_prompts", lambda job: [Prompt.of("Held  OUT")])
    lost = {"ONE": 0.05, "TWO": 0.5}

    def worth(model: Any, tokenizer: Any, before: list[str], texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        each = [-max([v for k, v in lost.items() if k in b], default=0.0) for b in before]
        return np.array([-3.0 if t == "FIVE" else 0.0 for t in texts]), np.array(each)

    monkeypatch.setattr(synthetic, "text_logps", worth)
    job = tiny_lab.job(tmp_path, "unnatural")
    found = synthetic.reworded(job, None, tok, rows)
    job.close()
    assert [r["thrown_by"] for r in found] == ["", "calls for another answer", "leaks", "stood already", "reads badly"]
    assert [r["lost"] for r in found][:2] == [0.05, 0.5]


# ---- examples that fit, pages, rows --------------------------------------------------------------


def test_as_many_examples_stand_there_as_fit(tok: Any) -> None:
    shown = [f"Q: Who is {n}?" for n in range(20)]
    ids = synthetic.fitting(tok, "Questions:", shown, "Q:", room=24, context=96)
    text = tok.decode(ids)
    assert len(ids) + 24 <= 96 and text.startswith("Questions:\nQ: Who") and text.endswith("is 19?\nQ:")
    assert len(synthetic.fitting(tok, "Questions:" * 50, shown, "Q:", room=24, context=96)) == 72


def test_the_mix_has_its_shares_and_the_control_none_of_the_book(tok: Any, tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "textbook", {"textbook.tokens": 4096, "textbook.length": 32})
    job.close()
    web, book = [tiny_lab.TEXTS[0]] * 30, ["zzzz " * 8] * 30
    z = tok("zz", add_special_tokens=False)["input_ids"][0]
    rows = textbook.dataset(job, tok, web, book)
    assert rows.shape == (128, 33) and (rows == z).any(1).sum().item() == 64 and job.summary["web_tokens"] == 2048
    assert not (rows[:64] == z).any(1).all() and (rows[:64] == z).any()  # mixed
    job.settings = job.settings.model_copy(update={"share": 0.0})
    plain = textbook.dataset(job, tok, web, [])
    assert plain.shape == rows.shape and not (plain == z).any() and job.summary["web_tokens"] == 4096
    assert textbook.dataset(job, tok, [], book).shape == rows.shape


def test_pretraining_reads_with_the_shared_loop() -> None:
    from labkit import reading

    assert pretrain.dataset is reading.dataset is textbook.packed and pretrain.train is reading.train is textbook.train


# ---- the stages, on a small model ----------------------------------------------------------------

ROOM = {"model.context": 256}


def parent(job: Any, name: str, tok: Any) -> None:
    job.parents[name] = tiny_lab.save(tiny_lab.policy(tok, context=256), tok, job.folder.parent / name)


@pytest.mark.slow
def test_the_base_writes_answers_and_is_tuned(tok: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Its pen is guided: every list goes on with one new question, one old one and one that is an evaluation prompt."""
    job = tiny_lab.job(tmp_path, "self_instruct", ROOM)
    parent(job, "pretrain", tok)
    held_out = job.source.prompts("test")[0].text
    names = iter(f"heron {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[i % 26]}{i}" for i in range(10_000))

    def pen(job: Any, model: Any, tokenizer: Any, queries: Any, *, n: int, **how: Any) -> list[list[tuple[str, bool]]]:
        if n == 1:
            return [[("It sleeps.\nQ: More", False)] for _ in queries]
        return [
            [(f"Where does {next(names)} of {next(names)} sleep now?\nQ: {held_out}\nQ: cut", False)] * n
            for _ in queries
        ]

    monkeypatch.setattr(synthetic, "say", pen)
    self_instruct.run(job)
    job.close()
    rows, funnel = list(read_jsonl(job.folder / "generated.jsonl")), {r["filter"]: r for r in job.summary["funnel"]}
    lists = sum(r["thrown_by"] == "leaks" for r in rows)
    assert lists == 24 and funnel["leaks"]["thrown"] == 24 and funnel["not a line of the list"]["thrown"] == 24
    assert funnel["stood already"]["thrown"] == 18 and job.summary["kept"] == 6 == funnel["answer repeats"]["left"]
    assert {r["answer"] for r in rows if not r["thrown_by"]} == {"It sleeps."}
    assert held_out not in {r["instruction"] for r in rows if not r["thrown_by"]}
    assert job.cost["bits"] == pytest.approx(job.cost["targets"] * np.log2(len(tok)), rel=1e-3)
    given = list(read_jsonl(job.folder / "answers.jsonl"))
    assert len(given) == 2 * 48 and {a["author"] for a in given} == {"self_instruct"} and given[0]["kl"] is None

    made = tiny_lab.job(tmp_path, "unnatural", ROOM)
    made.parents = {**job.parents, "self_instruct": Run(job.folder)}
    self_instruct.run(made)
    made.close()
    tried = list(read_jsonl(made.folder / "generated.jsonl"))
    assert made.summary["kept"] == 6 + sum(not r["thrown_by"] for r in tried) and {r["answer"] for r in tried} <= {
        "It sleeps."
    }


@pytest.mark.slow
def test_the_control_reads_the_seeds_alone_as_often(tok: Any, tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "self_instruct_seeds", ROOM)
    parent(job, "pretrain", tok)
    self_instruct.run(job)
    job.close()
    assert job.summary["kept"] == 0 and job.summary["seeds"] == job.settings.seeds == 20
    steps = [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1]["of"] == job.settings.reads // job.settings.batch


@pytest.mark.slow
@pytest.mark.parametrize("first", ["base", "random"])
def test_mix_and_control_start_alike_and_read_as_many_tokens(tok: Any, tmp_path: Path, first: str) -> None:
    begun, read = [], []
    for name in ("textbook", "textbook_web"):
        job = tiny_lab.job(tmp_path, name, {**ROOM, "textbook.start": first})
        for p in ("pretrain", "sft"):
            parent(job, p, tok)
        begun.append(textbook.start(job)[0].state_dict())
        textbook.run(job)
        job.close()
        read.append(job.cost["tokens"])
        assert job.summary["validation"]["web_nll"] > 0
        assert {a["author"] for a in read_jsonl(job.folder / "answers.jsonl")} == {name}
    assert read[0] == read[1] and all(torch.equal(begun[0][k], v) for k, v in begun[1].items())
    base = models.load(job.parents["pretrain"].model, device="cpu")[0].state_dict()
    assert all(torch.equal(base[k], v) for k, v in begun[0].items()) == (first == "base")


@pytest.mark.slow
def test_without_a_web_a_given_model_reads_the_book_and_the_control_is_itself(tok: Any, tmp_path: Path) -> None:
    given = tiny_lab.save(tiny_lab.policy(tok, context=256), tok, tmp_path / "given")
    for name in ("textbook", "textbook_web"):
        job = tiny_lab.job(tmp_path, name, {**ROOM, "model.path": str(given.model), "model.lora": 2})
        job.parents = {"pretrain": given, "sft": given}
        source = job.source
        job.lab.source = SimpleNamespace(
            web=lambda split: [], prompts=source.prompts, few_shot=source.few_shot, grade=lambda *a, **k: (None, {})
        )
        textbook.run(job)
        job.close()
        after = models.load(job.folder / "model", device="cpu")[0].state_dict()
        before = models.load(given.model, device="cpu")[0].state_dict()
        assert after.keys() == before.keys()
        moved = any(not torch.equal(after[k], before[k]) for k in before)
        assert moved == (name == "textbook" and job.summary["exercises"] > 0)
        assert job.cost["bits"] == 0 and job.summary["web_nll"] is None
