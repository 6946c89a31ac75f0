"""Templates and their search; prefixes against whole texts; soft prompts and prefix tuning against PEFT's own models."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_lab
import torch
import yaml

from labkit import ask, chat, imitation, models, prefixes, prompting, sampling
from labkit.errors import LabError
from labkit.lab import Lab
from labkit.prompting import Template
from labkit.records import Answer, Prompt, read_jsonl
from labkit.runs import Run
from labkit.stages import prompt_search, soft_prompt

torch.set_num_threads(1)
FEW = Template(head="A page.", rules="Be kind.", shots=(("Who?", "The badger."), ("What?", "Tar.")), name="few")
SHOTS = [(f"Who is number {i}?", f"The badger {i}.") for i in range(12)]


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


@pytest.fixture
def model(tok: Any) -> Any:
    return tiny_lab.policy(tok, layers=2, context=256)


def people(count: int = 40) -> list[Answer]:
    return [
        Answer(prompt=Prompt.of(f"Where is hill {i}?"), text=f"By the river {i}.", author="p") for i in range(count)
    ]


# ---- templates -----------------------------------------------------------------------------------


def test_a_template_by_hand() -> None:
    assert FEW.text == "A page.\nBe kind.\nQ: Who?\nA: The badger.\nQ: What?\nA: Tar.\nQ: {prompt}\nA:"
    assert Template(turn="{question}\n{answer}").text == "{prompt}\n"
    assert Template(turn='"{question}" "{answer}"').text == '"{prompt}" "'
    assert (
        FEW.answered("Fish.") == " Fish.\n" and Template(turn='"{question}" "{answer}"').answered("Fish.") == "Fish.\n"
    )
    assert FEW == Template(head="A page.", rules="Be kind.", shots=FEW.shots, name="another"), "names are for people"


def test_a_templates_pieces_are_its_tokens(tok: Any) -> None:
    """What is read once and what is read for each question are together the tokens of the whole text."""
    for template in prompting.load().start(SHOTS, random.Random(0)):
        before, after = template.pieces
        assert template.text == before + template.asked("{prompt}") and template.asked("Why?").endswith(after)
        whole = chat.text_ids(tok, template.text.replace("{prompt}", "Who sleeps?"))
        assert chat.text_ids(tok, before) + chat.text_ids(tok, template.asked("Who sleeps?")) == whole


def test_the_shipped_library_has_every_kind_of_template() -> None:
    found = {t.name: t for t in prompting.load().start(SHOTS, random.Random(0))}
    assert len(found) >= 12 and len(set(found.values())) == len(found)
    assert all(t.text.count("{prompt}") == 1 for t in found.values())
    assert not found["zero-shot"].shots and len(found["few-shot"].shots) >= 2
    assert (
        found["role"].head
        and found["dos and don'ts"].rules
        and found["answer format"].form
        and found["meta-prompt"].head
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"turns": {"qa": "{answer} {question}"}}, "needs a {question} and after it an {answer}"),
        ({"templates": {"a": {"turn": "nowhere"}, "b": {"turn": "qa"}}}, "turn 'nowhere', which is not there"),
        ({"templates": {"a": {"hat": "qa"}, "b": {"turn": "qa"}}}, "hat 'qa'"),
        ({"templates": {"a": {"head": "page"}, "b": {"turn": "qa"}}}, "needs a turn"),
        ({"templates": {"a": {"turn": "qa", "shots": "two"}, "b": {"turn": "qa"}}}, "whole number of shots"),
        ({"tempaltes": {}}, "tempaltes"),
    ],
)
def test_a_library_with_a_mistake_is_refused_in_a_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    body = yaml.safe_load(prompting.SHIPPED.read_text(encoding="utf-8")) | change
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(LabError) as error:
        prompting.load(tmp_path / "mine.yaml")
    assert said in str(error.value)


def test_a_library_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no library of templates"):
        prompting.load(tmp_path / "absent.yaml")
    for text in ("- a\n- list\n", "a: [", "just words"):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(LabError, match="no library that can be read"):
            prompting.load(tmp_path / "odd.yaml")


def test_another_library_is_another_run(tmp_path: Path) -> None:
    body = yaml.safe_load(prompting.SHIPPED.read_text(encoding="utf-8"))
    ids = []
    for head in ("Answers:", "Replies:"):
        body["heads"]["page"] = head
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(body))
        lab = Lab.open("smoke", {"prompt_search.library": str(tmp_path / "mine.yaml")}, outputs=tmp_path)
        ids.append(lab.plan("prompt_search").id)
    assert ids[0] != ids[1]


def test_a_child_is_made_of_its_parents_and_one_change() -> None:
    """Every part is a parent's or the library's, at most one part or example is neither parent's, none is too long."""
    library, rng = prompting.load(), random.Random(1)
    first = library.start(SHOTS, rng)
    for _ in range(300):
        a, b = rng.choice(first), rng.choice(first)
        child = library.child(a, b, SHOTS, 3, rng)
        strange = [p for p in prompting.PARTS if getattr(child, p) not in (getattr(a, p), getattr(b, p))]
        new = [s for s in child.shots if s not in a.shots + b.shots]
        assert len(strange) + len(new) <= 1 and len(child.shots) <= 3 and len(set(child.shots)) == len(child.shots)
        assert all(getattr(child, p) in ("", *library.part(p).values()) for p in strange) and set(new) <= set(SHOTS)
        assert a.name in child.how or b.name in child.how


# ---- the search ----------------------------------------------------------------------------------


def test_what_is_shown_is_never_what_scores() -> None:
    given = [*people(), *people(5), Answer(prompt=Prompt.of("Poem?"), text="one\ntwo", author="p")]
    shots, references = prompt_search.dataset(given, pool=24, references=16, seed=0)
    assert len(shots) == 20 and len(references) == 16, "at most half of the prompts are shown"
    asked = [q for q, _ in shots] + [a.prompt.text for a in references]
    assert len(set(asked)) == len(asked) and "Poem?" not in asked
    with pytest.raises(LabError, match="nothing can score a template"):
        prompt_search.dataset(given[-1:], pool=4, references=4, seed=0)


def test_likelihood_by_hand(tok: Any, model: Any, tmp_path: Path) -> None:
    """The mean log-probability of " By the river 3.\\n" after the whole text, read without any prefix."""
    job = tiny_lab.job(tmp_path, "prompt_search")
    for template in (FEW, Template(turn="{question}\n{answer}"), Template(turn='"{question}" "{answer}"')):
        found = prompt_search.likelihood(job, model, tok, template, people(5))
        for value, a in zip(found, people(5), strict=True):
            asked = chat.text_ids(tok, template.text.replace("{prompt}", a.prompt.text))
            said = chat.text_ids(tok, template.answered(a.text))
            with torch.no_grad():
                logits = model(torch.tensor([asked + said])).logits[0, len(asked) - 1 : -1]
            by_hand = torch.log_softmax(logits, -1)[range(len(said)), said].mean().item()
            assert value == pytest.approx(by_hand, abs=1e-5)


def searching(tmp_path: Path, tok: Any, score: Any, monkeypatch: Any, **more: Any) -> tuple[Template, list[Any], Any]:
    settings = {f"prompt_search.{k}": v for k, v in {"rounds": 3, "sample": 4, **more}.items()}
    job = tiny_lab.job(tmp_path, "prompt_search", {"model.context": 1024, **settings})
    job.lab.source = SimpleNamespace(demonstrations=people, prompts=lambda split: [p.prompt for p in people(3)])
    monkeypatch.setattr(prompt_search, "likelihood", score)
    best, rows = prompt_search.search(job, None, tok)
    job.close()
    return best, rows, job


def test_the_better_half_is_kept_and_the_sample_doubled(tok: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Scored by its number of letters without any noise, each round keeps the longer half, and the best gets no worse."""
    score = lambda job, model, tokenizer, t, some: np.full(len(some), float(len(t.text)))  # noqa: E731
    best, rows, job = searching(tmp_path, tok, score, monkeypatch)
    by_round = [[r for r in rows if r["round"] == i] for i in (1, 2, 3)]
    assert [r[0]["n"] for r in by_round] == [4, 8, 16] and len(by_round[0]) == len(prompting.load().templates)
    for before, after in zip(by_round, by_round[1:], strict=False):
        kept = {r["text"] for r in before if r["kept"]}
        assert len(kept) == len(before) // 2 and kept <= {r["text"] for r in after}
        assert min(r["score"] for r in before if r["kept"]) >= max(r["score"] for r in before if not r["kept"])
        assert len(after) == len(kept) + max(2, len(kept) // 2), "new ones are made of those that were kept"
    assert len(best.text) == max(r["score"] for r in rows) == by_round[-1][0]["score"]
    assert best.name.startswith("new") and job.cost["tokens"] > 0


def test_templates_that_leave_no_room_are_not_tried(tok: Any, tmp_path: Path, monkeypatch: Any) -> None:
    score = lambda job, model, tokenizer, t, some: np.full(len(some), float(len(t.text)))  # noqa: E731
    best, rows, _ = searching(tmp_path, tok, score, monkeypatch, **{"rounds": 2})
    short = tiny_lab.job(tmp_path / "short", "prompt_search", {"model.context": 96})
    assert not prompt_search.fits(short, tok, best, "Who?") and prompt_search.fits(short, tok, Template(), "Who?")
    with pytest.raises(LabError, match="No template leaves room"):
        job = tiny_lab.job(tmp_path / "none", "prompt_search", {"model.context": 32})
        job.lab.source = SimpleNamespace(demonstrations=people, prompts=lambda split: [p.prompt for p in people(3)])
        prompt_search.search(job, None, tok)


def test_gold_chooses_only_where_somebody_knows_it(tok: Any, model: Any, tmp_path: Path) -> None:
    job = tiny_lab.job(tmp_path, "prompt_search", {"model.context": 256})
    job.lab.source = SimpleNamespace(grade=lambda p, t, ended: (float(len(t)), {}))
    assert (prompt_search.gold(job, model, tok, FEW, people(4)) >= 0).all()
    job.lab.source = SimpleNamespace(grade=lambda p, t, ended: (None, {}))
    with pytest.raises(LabError, match="prompt_search.by=likelihood"):
        prompt_search.gold(job, model, tok, FEW, people(4))


def test_the_chosen_words_answer_and_can_be_asked(tok: Any, model: Any, tmp_path: Path) -> None:
    lab = Lab.open(
        "smoke", {"model.context": 512, "prompt_search.rounds": 2, "prompt_search.sample": 4}, outputs=tmp_path
    )
    base = lab.folder / lab.plan("pretrain").id
    tiny_lab.save(tiny_lab.policy(tok, context=512), tok, base)
    made(base, "pretrain", {}, files=["model/model.safetensors"])
    run = lab.run("prompt_search")
    prompts = [p for split in ("validation", "test") for p in lab.source.prompts(split)]
    assert {a.prompt.id for a in run.answers(author="prompt_search")} == {p.id for p in prompts}
    rows = list(read_jsonl(run.path / "search.jsonl"))
    assert run.summary["template"] in {r["text"] for r in rows} and run.manifest["cost"]["bits"] == pytest.approx(
        math.log2(run.summary["tried"]), abs=1e-3
    )
    answerer = ask.answerers(lab, "prompt_search")["prompt_search"]
    query = answerer._query(tok, Prompt.of("Who sleeps?"), 8)
    assert tok.decode(query) == run.summary["template"].replace("{prompt}", "Who sleeps?")
    assert "\n" not in answerer("Who sleeps?", max_tokens=12).text


def made(folder: Path, name: str, summary: dict[str, Any], files: list[str]) -> None:
    sizes = {f: {"bytes": (folder / f).stat().st_size} for f in files}
    body = {"id": folder.name, "name": name, "stage": name, "summary": summary, "parents": {}, "files": sizes}
    (folder / "run.json").write_text(json.dumps(body))
    (folder / "recipe.yaml").write_text(
        Lab.open("smoke", {"model.context": 512}, outputs=folder.parent.parent).recipe.dump()
    )


# ---- prefixes ------------------------------------------------------------------------------------


def test_behind_a_prefix_is_behind_its_text(tok: Any, model: Any) -> None:
    """Scores, samples and streams of rows behind a text that was read once are those of the texts with it in front."""
    text = chat.text_ids(tok, "The badger sleeps under a quiet hill.")
    prompts, answers = tiny_lab.ragged(7, seed=0, longest=9), tiny_lab.ragged(7, seed=1, longest=6)
    whole = [[*text, *p] for p in prompts]
    how = {"end": tok.eos_token_id, "pad_id": tok.pad_token_id, "max_tokens": 12, "seed": 3}
    expected, written = sampling.score_logps(model, whole, answers), sampling.sample(model, whole, n=2, **how)
    streamed = list(sampling.stream(model, whole[0], end=tok.eos_token_id, max_tokens=12, seed=3))
    with torch.inference_mode():
        prefix = prefixes.read(model, text)
    with prefixes.before(model, prefix):
        found, mine = sampling.score_logps(model, prompts, answers), sampling.sample(model, prompts, n=2, **how)
        mine_streamed = list(sampling.stream(model, prompts[0], end=tok.eos_token_id, max_tokens=12, seed=3))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))
    assert [s.ids for row in mine for s in row] == [s.ids for row in written for s in row]
    assert [t for t, _ in mine_streamed] == [t for t, _ in streamed]
    assert all(
        torch.allclose(a, b) for a, b in zip(sampling.score_logps(model, whole, answers), expected, strict=True)
    ), "afterwards nothing stands before the model any more"


def test_a_saved_prefix_comes_back_with_the_model(tok: Any, model: Any, tmp_path: Path) -> None:
    text, prompt, answer = [5, 6, 7, 8], [9, 10], [11, 12, 13]
    models.save(model, tok, tmp_path)
    [expected] = sampling.score_logps(model, [[*text, *prompt]], [answer])
    with torch.inference_mode():
        prefixes.save(prefixes.read(model, text), tmp_path / "model")
    [found] = sampling.score_logps(models.load(tmp_path / "model", device="cpu")[0], [prompt], [answer])
    assert torch.allclose(found, expected, atol=1e-5)


# ---- soft prompts and prefix tuning --------------------------------------------------------------

METHODS = pytest.mark.parametrize("method", ["soft", "prefix"])


def wrapped(tok: Any, model: Any, folder: Path, method: str, **more: Any) -> Any:
    models.save(model, tok, folder)
    settings = soft_prompt.Settings(method=method, tokens=6, start="The badger sleeps", **more)
    return soft_prompt.wrapped(model, settings, tokenizer=tok, folder=folder / "model"), settings


def shaken(peft: Any) -> Any:
    """The prompt moved away from its words."""
    with torch.no_grad():
        for weight in (p for p in peft.parameters() if p.requires_grad):
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)))
    return peft


@METHODS
def test_both_start_as_the_words_in_front(tok: Any, model: Any, tmp_path: Path, method: str) -> None:
    """Before any training, either prompt is the text that it starts from: the same log-probabilities as with that text."""
    peft, settings = wrapped(tok, model, tmp_path, method)
    starts = soft_prompt.start_ids(tok, settings)
    assert len(starts) == 6 and starts == (chat.text_ids(tok, "The badger sleeps") * 6)[:6]
    [expected] = sampling.score_logps(model, [[*starts, 40, 41]], [[42, 43]])
    with torch.no_grad(), prefixes.before(peft, soft_prompt.prefix(peft)):
        [found] = sampling.score_logps(peft, [[40, 41]], [[42, 43]])
    assert torch.allclose(found, expected, atol=1e-5)
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    assert trained == {"soft": 6 * 16, "prefix": 6 * 16 * 2 * 2}[method]


@METHODS
def test_our_loss_and_its_gradient_are_pefts(tok: Any, model: Any, tmp_path: Path, method: str) -> None:
    """On a ragged batch: PEFT puts the prompt before every row, here it is read once and all rows stand behind it."""
    peft = shaken(wrapped(tok, model, tmp_path, method)[0])
    rows, width = tiny_lab.ragged(5, seed=2, longest=11), 12
    tokens = torch.tensor([r + [0] * (width - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in rows])
    labels = tokens.masked_fill(mask == 0, -100)
    labels[:, 0] = -100  # the first token has nothing before it without a prompt, and is a question's in any case
    [weight] = [p for p in peft.parameters() if p.requires_grad]
    theirs = peft(input_ids=tokens, attention_mask=mask, labels=labels).loss
    theirs.backward()
    expected, weight.grad = weight.grad.clone(), None
    ours = soft_prompt.loss(peft, {"input_ids": tokens, "attention_mask": mask, "labels": labels})
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert torch.allclose(weight.grad, expected, atol=1e-5) and expected.abs().max() > 1e-4


@METHODS
def test_what_is_saved_answers_as_pefts_own_model(tok: Any, tmp_path: Path, method: str) -> None:
    """A run from end to end: base weights untouched, the prompt moved; the run's model and the adapter loaded by PEFT have
    the same logits, and the answers to the lab's prompts are there.
    """
    from peft import PeftModel

    base = tiny_lab.save(tiny_lab.policy(tok, layers=2, context=256), tok, tmp_path / "base")
    name = {"soft": "soft_prompt", "prefix": "prefix"}[method]
    sizes = {"soft_prompt.tokens": 5, "soft_prompt.limit": 24, "model.context": 256, "answers.max_tokens": 6}
    job = tiny_lab.job(tmp_path, name, {**sizes, "model.layers": 2})
    job.parents["pretrain"] = base
    soft_prompt.run(job)
    job.close()
    before, after = (models.load(f, device="cpu")[0] for f in (base.model, job.folder / "model"))
    assert all(torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items())
    plain = models.load(base.model, device="cpu")[0]
    peft = PeftModel.from_pretrained(plain, job.folder / "adapter").eval()
    row = torch.tensor([tiny_lab.ragged(1, seed=4, longest=12)[0]])
    with torch.no_grad():
        theirs, ours, bare = peft(input_ids=row).logits[:, -row.shape[1] :], after(row).logits, before(row).logits
    assert torch.allclose(theirs, ours, atol=1e-4) and not torch.allclose(ours, bare, atol=1e-2)
    assert job.summary["trained"] == {"soft": 5 * 16, "prefix": 5 * 16 * 4}[method]
    authors = {a.author for a in Run(job.folder).answers()}
    assert authors == {name} and not any(a.kl for a in Run(job.folder).answers())
    assert ("nearest" in job.summary) == (method == "soft")


def test_a_prompt_learns_and_is_asked_on_a_page(tok: Any, model: Any, tmp_path: Path) -> None:
    """Trained on four answers it makes them likelier; the question stands as `Q:` and `A:`, and the end is learned."""
    peft, settings = wrapped(tok, model, tmp_path, "soft")
    tok = chat.train_tokenizer(tiny_lab.TEXTS, vocabulary=300, context=256)
    tok.chat_template = prompting.PAGE
    shown = [Answer(prompt=Prompt.of(asked), text=good, author="p") for asked, good, _ in tiny_lab.PAIRS]
    asked, said = chat.answer_ids(tok, shown[0].prompt, shown[0].text)
    assert tok.decode(asked) == f"Q: {shown[0].prompt.text}\nA:" and tok.decode(said) == " Fish.<end>"
    job = tiny_lab.job(tmp_path, "soft_prompt", {"soft_prompt.epochs": 30, "soft_prompt.batch": 4})
    job.settings = job.settings.model_copy(update={"learning_rate": 0.1})
    fit = soft_prompt.trainer(job, peft, tok, imitation.dataset(shown, tok, context=256))
    fit.train()
    job.close()
    losses = [row["train/loss"] for row in map(json.loads, (job.folder / "metrics.jsonl").read_text().splitlines())]
    assert losses[-1] < losses[0] - 0.5


def test_nearest_words_by_hand(tok: Any) -> None:
    """A vector along a word's embedding finds that word with cosine 1, whatever its length; marks are never words."""
    embeddings = torch.randn(len(tok), 16, generator=torch.Generator().manual_seed(0))
    [fish] = chat.text_ids(tok, "f")
    mark = tok.convert_tokens_to_ids(chat.USER)
    vectors = torch.stack([3 * embeddings[fish], 2 * embeddings[mark]])
    rows = soft_prompt.nearest(vectors, embeddings, tok, starts=[fish, fish])
    assert rows[0]["nearest"][0] == ["f", 1.0] and rows[0]["start"] == "f" and rows[0]["cosine_to_start"] == 1
    assert chat.USER not in [w for w, _ in rows[1]["nearest"]] and len(rows[1]["nearest"]) == 3
    assert "start" not in soft_prompt.nearest(vectors, embeddings, tok, starts=[])[0]
