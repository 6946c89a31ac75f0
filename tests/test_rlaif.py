"""The constitution and its requests, the lessons, the critic's loss and verdicts, what the verdicts become, and who reads which votes."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_lab
import torch
import yaml
from scipy.optimize import minimize_scalar

from labkit import chat, constitution, models, sampling, stages
from labkit.errors import LabError
from labkit.feedback import store
from labkit.lab import Lab
from labkit.records import Answer, Prompt, read_jsonl
from labkit.runs import Run
from labkit.stages import ai_preferences, constitutional, critic, dpo
from labkit.world import World
from labkit.world.principles import Lesson

torch.set_num_threads(1)
ROOM = {"model.context": 1024}  # the tests' tokenizer writes a request in some hundred tokens


@pytest.fixture(scope="module")
def tok() -> Any:
    return tiny_lab.tokenizer()


@pytest.fixture(scope="module")
def by() -> constitution.Constitution:
    """The lab's constitution as a critic that was taught goes by it."""
    return constitution.load().model_copy(update={"shown": False})


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=0)


PROMPT = Prompt.of("How do I mend a bucket?", kind="how_to")


# ---- the constitution ----------------------------------------------------------------------------


def test_a_critique_names_what_is_broken(by: constitution.Constitution) -> None:
    assert by.fault("kind", "it is rude.") == "Kind? No: it is rude." and by.fault("", "") == by.keep
    for principle in by.principles:
        assert by.broken(by.fault(principle.name, "it is about something else.")) == principle
    assert by.broken(by.keep) is None and by.broken("I would say: it keeps to every principle!") is None
    assert by.broken("Neither true nor kind.").name == "true"  # type: ignore[union-attr]
    assert by.broken("That is unkindly untrue.") == by.principles[0]  # names none of them: the one that weighs most


def test_requests_are_one_conversation(by: constitution.Constitution) -> None:
    """Each request goes on where the last one ended, and the question stands again in the last turn."""
    first, second = by.to_criticise(PROMPT, "No."), by.to_revise(PROMPT, "No.", "Kind? No: it is rude.")
    assert [m["role"] for m in second.messages] == ["user", "assistant"] * 2 + ["user"]
    assert second.messages[:3] == first.messages and first.messages[0]["content"] == PROMPT.text
    assert second.text == f"{by.principles[1].revision} {PROMPT.text}"
    verdict = by.to_judge(PROMPT, "Tar.", "No.")
    assert verdict.text.splitlines() == [PROMPT.text, "A: Tar.", "B: No.", by.judge] and verdict.kind == "how_to"
    talk = replace(
        PROMPT,
        messages=({"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}, *PROMPT.messages),
    )
    assert by.to_judge(talk, "a", "b").messages[:2] == talk.messages[:2]


def test_only_who_was_not_taught_is_shown_the_principles(by: constitution.Constitution) -> None:
    shown = constitution.load()
    for ask in (lambda c: c.to_criticise(PROMPT, "No."), lambda c: c.to_judge(PROMPT, "a", "b")):
        assert all(p.text in ask(shown).text and p.text not in ask(by).text for p in by.principles)
    assert shown.principles[1].text in shown.to_revise(PROMPT, "No.", "Kind? No.").text


def test_a_constitution_comes_back_as_it_was_saved(by: constitution.Constitution, tmp_path: Path) -> None:
    by.save(tmp_path)
    assert constitution.of(Run(tmp_path)) == by and constitution.load() != by


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"principles": []}, "principles"),
        ({"judge": ""}, "judge"),
        ({"jugde": "Which?"}, "jugde"),
        ({"principles": [{"name": "Kind!", "text": "a", "critique": "b", "revision": "c"}]}, "name"),
        (
            {"principles": [{"name": "kind", "text": "a", "critique": "b", "revision": "c"}] * 2},
            "two principles have one name",
        ),
    ],
)
def test_a_constitution_with_a_mistake_is_refused_in_a_sentence(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    body = yaml.safe_load(constitution.SHIPPED.read_text(encoding="utf-8")) | change
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(body))
    with pytest.raises(LabError, match=said):
        constitution.load(tmp_path / "mine.yaml")


def test_a_constitution_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="critic.constitution"):
        constitution.load(tmp_path / "absent.yaml")
    for text in ("- a\n- list\n", "a: [", "just words"):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(LabError, match="no constitution"):
            constitution.load(tmp_path / "odd.yaml")


# ---- the lessons ---------------------------------------------------------------------------------


def test_lessons_are_about_training_prompts_and_better_by_construction(world: World) -> None:
    names = constitution.load().names
    found = world.lessons(names, 400)
    assert len(found) == 400 and found[:50] == World(seed=0).lessons(names, 50)
    train = {p.id for p in world.prompts("train")}
    assert {each.prompt.id for each in found} <= train
    assert {each.principle for each in found} == {"", *names}
    assert all((each.principle == "") == (each.answer == each.better) == (each.fault == "") for each in found)
    assert all(each.prompt.kind == "harmful" for each in found if each.principle == "harmless")
    longer = np.mean([len(each.better) > len(each.answer) for each in found if each.principle])
    assert 0.4 < longer < 0.75, "lessons must not teach that the longer answer is the better one"


def test_a_constitution_without_a_principle_teaches_nothing_of_it(world: World) -> None:
    assert {each.principle for each in world.lessons(["kind", "of my own"], 60)} == {"", "kind"}
    assert world.lessons(["of my own"], 60) == []


def test_nothing_on_the_way_to_a_verdict_reads_gold(root: Path) -> None:
    """The lessons and the critic never call a grade; elsewhere it is called in the functions that only measure."""
    may = {"labkit/world/principles.py": set(), "labkit/stages/critic.py": set(), "labkit/constitution.py": set()}
    may |= {"labkit/stages/constitutional.py": {"_golds"}}
    may |= {"labkit/stages/ai_preferences.py": {"measure", "against_people", "self_preference"}}
    for name, allowed in may.items():
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        callers = {
            f.name
            for f in ast.walk(tree)
            if isinstance(f, ast.FunctionDef)
            for n in ast.walk(f)
            if (isinstance(n, ast.Attribute) and n.attr == "grade") or (isinstance(n, ast.Name) and n.id == "grade")
        }
        assert callers <= allowed, f"{name}: {callers - allowed} reads the gold utility"


def test_the_world_is_the_same_with_and_without_lessons(world: World) -> None:
    other = World(seed=0)
    other.lessons(["kind"], 50)
    assert other.digest() == world.digest() and other.prompts("test") == world.prompts("test")
    assert other.demonstrations()[:50] == world.demonstrations()[:50]


# ---- the critic ----------------------------------------------------------------------------------

LESSON = Lesson(prompt=PROMPT, answer="No.", principle="kind", fault="it is rude.", better="Take tar.")


def test_a_lesson_is_a_critique_a_revision_and_a_verdict_in_both_orders(by: constitution.Constitution) -> None:
    rows = critic.dataset([LESSON], by)
    assert [r.text for r in rows] == ["Kind? No: it is rude.", "Take tar.", "A", "B"]
    assert "A: Take tar.\nB: No." in rows[2].prompt.text and "A: No.\nB: Take tar." in rows[3].prompt.text
    kept = replace(LESSON, principle="", fault="", answer="Take tar.")
    assert [r.text for r in critic.dataset([kept], by)] == [by.keep]


def test_each_request_counts_alike_in_the_loss(tok: Any) -> None:
    """Against torch's cross-entropy row by row: a letter of two tokens weighs as much as a revision of many."""
    model = tiny_lab.policy(tok)
    rows = [([5, 6, 7], [8, 1]), ([9, 10], [11, 12, 13, 14, 15, 16, 1])]
    alone = []
    for asked, said in rows:
        logits = model(input_ids=torch.tensor([asked + said])).logits[0, len(asked) - 1 : -1]
        alone.append(torch.nn.functional.cross_entropy(logits, torch.tensor(said)).item())
    assert critic.loss(model, rows).item() == pytest.approx(sum(alone) / 2, rel=1e-5)


def test_the_temperature_is_the_one_that_costs_least() -> None:
    """Log-odds three times too large need τ = 3; an independent minimiser agrees."""
    dice = np.random.default_rng(0)
    true = dice.normal(0, 2, 4000)
    right = np.where(dice.random(4000) < 1 / (1 + np.exp(-true)), true, -true)  # of the answer that is better
    found = critic.temperature(3 * right)
    best = minimize_scalar(lambda t: np.logaddexp(0, -3 * right / math.exp(t)).mean(), bounds=(-2, 5), method="bounded")
    assert found == pytest.approx(3, rel=0.12) and found == pytest.approx(math.exp(best.x), rel=0.03)


def test_another_constitution_is_another_critic(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(constitution.SHIPPED.read_text(encoding="utf-8"))
    plans = []
    for _ in range(2):
        plans.append(
            {
                n: Lab.open("smoke", {"critic.constitution": str(mine)}, outputs=tmp_path).plan(n).id
                for n in ("critic", "rlaif")
            }
        )
        mine.write_text(mine.read_text().replace("Be kind to", "Be stern with"))
    assert plans[0]["critic"] != plans[1]["critic"] and plans[0]["rlaif"] != plans[1]["rlaif"]


# ---- verdicts ------------------------------------------------------------------------------------

PAIRS = [(Prompt.of(asked), good, bad) for asked, good, bad in tiny_lab.PAIRS]


def test_log_odds_are_those_of_the_two_letters(tok: Any, by: constitution.Constitution) -> None:
    """Against the whole model run on each request by itself."""
    model = tiny_lab.policy(tok, context=1024)
    z = constitution.log_odds(model, tok, by, PAIRS, context=1024, batch=3)
    for (prompt, a, b), found in zip(PAIRS, z, strict=True):
        for order, (first, second, sign) in enumerate(((a, b, 1), (b, a, -1))):
            asked = by.to_judge(prompt, first, second)
            before, letter = chat.answer_ids(tok, asked, "A")
            other = chat.answer_ids(tok, asked, "B")[1]
            same = next(i for i, (x, y) in enumerate(zip(letter, other, strict=False)) if x != y)
            logits = model(input_ids=torch.tensor([before + letter[:same]])).logits[0, -1]
            assert found[order] == pytest.approx(sign * (logits[letter[same]] - logits[other[same]]).item(), abs=1e-4)


def test_turning_the_pairs_round_turns_the_verdicts_round(tok: Any, by: constitution.Constitution) -> None:
    model = tiny_lab.policy(tok, context=1024)
    z = constitution.log_odds(model, tok, by, PAIRS, context=1024)
    turned = constitution.log_odds(model, tok, by, [(p, b, a) for p, a, b in PAIRS], context=1024)
    assert turned == pytest.approx(-z[:, ::-1], abs=1e-4)


def test_a_leaning_towards_a_letter_cancels(
    tok: Any, by: constitution.Constitution, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_lab.policy(tok, context=1024)
    plain = constitution.log_odds(model, tok, by, PAIRS, context=1024)
    _, (a, _) = constitution._letters(tok)
    whole = sampling.answer_logits

    def leaning(*args: Any) -> Any:
        logits, mask = whole(*args)
        logits[:, a] += 5.0
        return logits, mask

    monkeypatch.setattr(sampling, "answer_logits", leaning)
    biased = constitution.log_odds(model, tok, by, PAIRS, context=1024)
    assert biased[:, 0] == pytest.approx(plain[:, 0] + 5, abs=1e-4) and biased[:, 1] == pytest.approx(
        plain[:, 1] - 5, abs=1e-4
    )
    assert biased.mean(1) == pytest.approx(plain.mean(1), abs=1e-4)


def test_what_does_not_fit_the_context_is_left_out(tok: Any, by: constitution.Constitution, tmp_path: Path) -> None:
    model = tiny_lab.policy(tok, context=1024)
    long = (PROMPT, "tar " * 200, "No.")
    z = constitution.log_odds(model, tok, by, [PAIRS[0], long], context=256)
    assert np.isfinite(z[0]).all() and np.isnan(z[1]).all()
    job = tiny_lab.job(tmp_path, "sl_cai", {"model.context": 256})
    said = constitution.speak(job, model, tok, [by.to_judge(*p) for p in (PAIRS[0], long)], temperature=1.0, seed=0)
    assert said[1] == ("", False)
    job.close()


def judged(prompt: Prompt, first: str, second: str, *z: float) -> ai_preferences.Judged:
    return ai_preferences.Judged(prompt, first, second, (z[0], z[1]))


def test_verdicts_become_votes_by_a_model() -> None:
    job = SimpleNamespace(id="ai_preferences-1")
    found = [
        judged(PROMPT, "a", "b", 3.0, -1.0),
        judged(PROMPT, "a", "c", -1.0, -1.0),
        judged(PROMPT, "b", "c", 1.0, -1.0),
    ]
    votes = ai_preferences.votes_of(job, found)  # type: ignore[arg-type]
    for vote in votes:
        store.check(vote)
    assert [v.ranks for v in votes] == [(1, 2), (2, 1), (1, 1)]
    assert {(v.source, v.rater, v.run) for v in votes} == {("model", "critic", "ai_preferences-1")}
    assert len({v.id for v in votes}) == 3 and [len(v.pairs()) for v in votes] == [1, 1, 0]


def test_the_critic_is_shown_nothing_of_what_people_thought() -> None:
    """Turning every ranking round changes neither which pairs are judged nor which answer stands first."""
    votes = [tiny_lab.vote(f"Question {i}?", ("x", "y", "z", "y"), (1, 2, 3, 2)) for i in range(20)]
    turned = [replace(v, answers=v.answers[::-1], ranks=(3, 2, 1, 2)) for v in votes]
    pairs = ai_preferences.dataset(votes, "train", seed=3)
    assert pairs == ai_preferences.dataset(turned, "train", seed=3) and len(pairs) == 60
    assert (
        len(ai_preferences.dataset([*votes, *votes], "train")) == 60
        and len(ai_preferences.dataset(votes, "train", limit=7)) == 7
    )
    assert ai_preferences.dataset(votes, "validation") == []
    first = np.mean([a == "x" for _, a, b in pairs if "x" in (a, b)])
    assert 0.25 < first < 0.75


def measured(
    tmp_path: Path, found: list[ai_preferences.Judged], votes: list[Any], golds: dict[str, float] | None
) -> dict[str, Any]:
    job = tiny_lab.job(tmp_path, "ai_preferences")
    job.close()
    job.lab.source = tiny_lab.graded(job.source, lambda p, t, ended=True: (golds[t] if golds else None, {}))
    return ai_preferences.measure(job, found, votes, 1.0)


def test_what_is_measured_of_the_verdicts_by_hand(tmp_path: Path) -> None:
    """Two prompts. Of three verdicts people share two, gold agrees with one, one turns with the order."""
    one, two = (
        tiny_lab.vote(q, ("long answer", "short", "mid one"), (1, 2, 2), split="validation") for q in ("One?", "Two?")
    )
    found = [
        judged(one.prompt, "long answer", "short", 2.0, 2.0),  # chooses as people did
        judged(one.prompt, "mid one", "long answer", 1.0, 3.0),  # against people
        judged(two.prompt, "short", "long answer", -3.0, 1.0),  # as people did, but turns with the order
    ]
    golds = {"long answer": 0.0, "short": 1.0, "mid one": 2.0}
    figures = measured(tmp_path, found, [one, two], golds)
    assert figures["pairs"] == 3 and figures["pairs_of_people"] == 3
    assert figures["agrees_with_people"] == pytest.approx((0.5 + 1) / 2)
    assert figures["agrees_with_gold"] == pytest.approx((0.5 + 0) / 2)
    assert figures["people_agree_with_gold"] == pytest.approx(0)
    assert figures["chooses_longer"] == pytest.approx((0.5 + 1) / 2) and figures["people_choose_longer"] == 1
    assert figures["same_in_both_orders"] == pytest.approx((1 + 0) / 2)
    assert figures["chooses_first"] == pytest.approx((0.5 + 0) / 2)  # the turning one always chose what stood second
    assert sum(r["n"] for r in figures["calibration"]) == 3
    rows = {r["who"]: r["agreement"] for r in ai_preferences.agreement(figures)}
    assert len(rows) == 6 and rows["critic and people"] == figures["agrees_with_people"]
    assert not {"agrees_with_gold", "people_agree_with_gold"} & set(measured(tmp_path, found, [one, two], None))


def test_a_calibrated_critic_is_right_as_often_as_it_says() -> None:
    dice = np.random.default_rng(0)
    sure = 1 / (1 + np.exp(-np.abs(dice.normal(0, 2, 20_000))))
    for row in ai_preferences.calibration(sure, dice.random(20_000) < sure):
        assert row["accuracy"] == pytest.approx(row["confidence"], abs=0.03) and row["n"] == 4000
    assert len(ai_preferences.calibration(sure[:3], sure[:3] > 0)) == 3


def test_confidence_by_hand() -> None:
    """3 and −1 are 1 on average: σ(1), at τ = 2 σ(½); a leaning of any size changes nothing."""
    z = np.array([[3.0, -1.0], [1.0 + 50, 1.0 - 50]])
    assert constitution.confidence(z, 1.0) == pytest.approx([1 / (1 + math.exp(-1))] * 2)
    assert constitution.confidence(z, 2.0) == pytest.approx([1 / (1 + math.exp(-0.5))] * 2)


def test_self_preference_compares_answers_of_like_quality(tmp_path: Path) -> None:
    """The closest pair of each prompt; none where no two are alike, and none on a prompt that the critic was taught on."""
    votes = [tiny_lab.vote(q, ("own 0", "own 2"), (1, 2)) for q in ("One?", "Two?", "Three?")]
    people = [
        Answer(prompt=v.prompt, text=t, author="p")
        for v, t in zip(votes, ("theirs 2.1", "theirs 9", "theirs 0"), strict=True)
    ]
    job = tiny_lab.job(tmp_path, "ai_preferences", votes=votes)
    job.close()
    job.lab.source = SimpleNamespace(
        grade=lambda p, t, ended=True: (float(t.split()[1]), {}), demonstrations=lambda: people
    )
    (tmp_path / "lessons.jsonl").write_text(json.dumps({"prompt": {"id": votes[2].prompt.id}}) + "\n")
    job.parents["critic"] = Run(tmp_path)
    assert ai_preferences.against_people(job) == [(votes[0].prompt, "own 2", "theirs 2.1")]
    job.votes = [replace(v, source="import") for v in votes]
    assert ai_preferences.against_people(job) == []


# ---- the stages, on a small model ----------------------------------------------------------------


def finished(job: Any) -> Run:
    job.close()
    (job.folder / "run.json").write_text(
        json.dumps({"id": job.id, "name": job.name, "stage": job.stage, "summary": job.summary})
    )
    return Run(job.folder)


@pytest.fixture(scope="module")
def taught(tok: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A critic of a handful of lessons, and the model that it was made from."""
    outputs = tmp_path_factory.mktemp("critic")
    sft = tiny_lab.save(tiny_lab.policy(tok, context=1024), tok, outputs / "sft")
    job = tiny_lab.job(outputs, "critic", {**ROOM, "critic.lessons": 8, "critic.held_out": 12, "critic.epochs": 2})
    job.parents["sft"] = sft
    critic.run(job)
    return finished(job), sft


def test_the_critic_learns_its_lessons_and_is_measured_on_others(taught: tuple[Run, Run]) -> None:
    made, _ = taught
    rows = list(read_jsonl(made.path / "lessons.jsonl"))
    assert len(rows) == made.summary["lessons"] == 8 and not constitution.of(made).shown
    held_out = made.summary["held_out"]
    assert 0 < held_out["lessons"] <= 12 and held_out["temperature"] > 0 and 0 <= held_out["chooses_first"] <= 1
    losses = [row["train/loss"] for row in made.metrics()]
    assert losses[-1] < losses[0]


def test_without_lessons_the_critic_is_the_model_itself_and_is_shown_the_principles(
    tok: Any, taught: tuple[Run, Run], tmp_path: Path
) -> None:
    job = tiny_lab.job(tmp_path, "critic", ROOM)
    job.parents["sft"] = taught[1]
    job.lab.source = SimpleNamespace(lessons=lambda principles, count: [])
    critic.run(job)
    made = finished(job)
    assert constitution.of(made).shown and made.summary == {"principles": constitution.load().names, "lessons": 0}
    before, after = (models.load(run.model, device="cpu")[0].state_dict() for run in (taught[1], made))
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize(("harmful", "bad"), [(0.0, 0), (0.3, 6), (1.0, 10)])
def test_prompts_are_harmful_in_their_share_as_far_as_there_are_such(harmful: float, bad: int) -> None:
    prompts = [Prompt.of(str(i), kind="harmful" if i < 10 else "fact") for i in range(100)]
    found = constitutional.chosen(prompts, 20, harmful, seed=0)
    assert len({p.id for p in found}) == 20 and sum(p.kind == "harmful" for p in found) == bad
    assert len(constitutional.chosen(prompts[5:12], 20, harmful, seed=0)) == 7


def test_a_revision_is_taken_only_where_something_is_broken_and_it_ends(
    by: constitution.Constitution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [
        constitutional.Revised(prompt=Prompt.of(q), before=q, after=q) for q in ("fine", "rude", "endless", "too long")
    ]
    replies = [
        [(by.keep, True), ("Kind? No: it is rude.", True), ("Measured? No: it rambles.", True), ("", False)],
        [("politely", True), ("and on and on", False)],
    ]
    monkeypatch.setattr(constitution, "speak", lambda *args, **more: replies.pop(0))
    job = tiny_lab.job(tmp_path, "sl_cai")
    job.close()
    found = constitutional.revise(job, None, None, by, before, seed=0)
    assert [(r.after, r.principle) for r in found] == [
        ("fine", ""),
        ("politely", "kind"),
        ("endless", ""),
        ("too long", ""),
    ]
    assert [r.before for r in found] == ["fine", "rude", "endless", "too long"]


def test_what_did_not_end_is_imitated_only_where_nothing_did() -> None:
    cut, whole, empty = (
        constitutional.Revised(prompt=PROMPT, before=t, after=t, ended=e)
        for t, e in (("and the", False), ("Tar.", True), ("", True))
    )
    assert [a.text for a in constitutional.finished([cut, whole, empty])] == ["Tar."]
    assert [a.text for a in constitutional.finished([cut, empty])] == ["and the"] and constitutional.finished(
        [empty]
    ) == []


def test_the_control_reads_each_lesson_about_as_often(taught: tuple[Run, Run], tmp_path: Path) -> None:
    job = SimpleNamespace(parents={"critic": taught[0]})
    found = constitutional.lessons(job, 20)  # type: ignore[arg-type]
    assert (
        len(found) == 20 and {a.author for a in found} == {"lessons"} and all(a.prompt.split == "train" for a in found)
    )
    assert constitutional.lessons(SimpleNamespace(parents={"critic": Run(tmp_path)}), 20) == []  # type: ignore[arg-type]


def test_people_and_critic_each_have_their_own_readers(tmp_path: Path) -> None:
    """`dpo` reads people's votes, `rlaif` the critic's, of the same stage and with the same settings."""
    lab = Lab.open("smoke", outputs=tmp_path)
    people, ai = lab.plan("preferences").id, lab.plan("ai_preferences").id
    lab.votes.add(tiny_lab.vote("Who?", ("a", "b"), (1, 2), run=people))
    assert len(lab.plan("ai_preferences").votes or []) == 1 and lab.plan("ai_preferences").id != ai
    ai = lab.plan("ai_preferences").id
    lab.votes.add(replace(tiny_lab.vote("Who?", ("a", "b"), (2, 1), run=ai), id="model", source="model"))
    assert [v.ranks for v in lab.plan("dpo").votes or []] == [(1, 2)] and [
        v.ranks for v in lab.plan("rlaif").votes or []
    ] == [(2, 1)]
    assert lab.plan("dpo").settings == lab.plan("rlaif").settings and stages.module("dpo") is dpo
