"""What stages cost: operations by hand, weights by the real model's own count, and who wrote what by parents and settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic
import tiny_lab

from labkit import costs, pyramid, report, runs, stages, theme
from labkit.records import write_jsonl
from labkit.runs import Run


def known(path: Path, name: str, *, stage: str = "", **manifest: Any) -> Run:
    """A run with this manifest and nothing else."""
    folder = path / f"{name}-000000"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "name": name,
        "stage": stage or name,
        "settings": {},
        "parents": {},
        "cost": {},
        "seconds": 1.0,
        "summary": {},
    }
    (folder / runs.MANIFEST).write_text(json.dumps(facts | {"files": {}} | manifest))
    return Run(folder)


def test_operations_by_hand() -> None:
    """10 weights: 7 tokens of training 6 · 10 · 7 = 420, 5 tokens read 2 · 10 · 5 = 100."""
    assert costs.flops(10, trained=7) == 420 and costs.flops(10, read=5) == 100
    assert costs.flops(10, trained=7, read=5) == 520


def test_weights_are_those_of_the_model_without_its_embeddings(tmp_path: Path) -> None:
    """Counted in the saved file and computed from the sizes: both are what torch counts."""
    tok = tiny_lab.tokenizer()
    model = tiny_lab.policy(tok, hidden=24, layers=3, heads=2, intermediate=40)
    body = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n and "lm_head" not in n)
    sizes = {"path": "", "hidden": 24, "layers": 3, "intermediate": 40}
    run = known(tmp_path, "sft", model=sizes)
    assert costs.weights(run) == body  # by the sizes, the weights being cleaned away
    tiny_lab.save(model, tok, run.path)
    assert costs.weights(run) == body
    assert costs.weights(known(tmp_path, "dpo", model=sizes | {"path": "some/model"})) is None
    assert costs.weights(known(tmp_path, "kto")) is None


@pytest.mark.parametrize(
    ("stage", "settings", "cost", "expected"),
    [
        ("sft", {"epochs": 3}, {"tokens": 90}, (90, 0, 0)),
        ("ppo", {"epochs": 2}, {"tokens": 80}, (80, 40, 80)),
        ("dpo", {"epochs": 2}, {"tokens": 80}, (80, 0, 40)),
        ("best_of_n", {}, {"tokens": 50}, (0, 50, 50)),
        ("sft", {}, {"tokens": 90, "sampled": 7, "scored": 8}, (90, 7, 8)),
        ("dpo", {"epochs": 2}, {"tokens": 80, "scored": 3}, (80, 0, 3)),
        ("compare", {}, {}, (0, 0, 0)),
    ],
)
def test_what_was_read(tmp_path: Path, stage: str, settings: Any, cost: Any, expected: Any) -> None:
    assert costs.reads(known(tmp_path, stage, settings=settings, cost=cost)) == expected


def test_texts_that_were_kept_are_counted(tmp_path: Path) -> None:
    """SFT writes a token for 4 letters. 2 distinct answers of 8 letters: 4 tokens; a model of one pair read them behind
    8 letters twice."""
    sft = known(tmp_path, "sft")
    row = {"prompt": {"split": "validation"}, "text": "12345678", "tokens": 2}
    write_jsonl(sft.path / "answers.jsonl", [row, row | {"prompt": {"split": "test"}, "tokens": 999}])
    vote = tiny_lab.vote("12345678", ("abcdefgh", "ABCDEFGH"), (1, 2))
    made = known(tmp_path, "preferences", parents={"sft": sft.id}, cost={"targets": 1})
    write_jsonl(made.path / "votes.jsonl", [vote, replace(vote, id="again"), replace(vote, id="own", source="import")])
    assert costs.reads(made) == (0, 4, 0)
    reward = known(tmp_path, "reward", parents={"sft": sft.id}, cost={"targets": 1}, settings={"epochs": 2})
    write_jsonl(reward.path / "votes.jsonl", [vote])
    assert costs.reads(reward) == (2 * (8 + 8 + 8 + 8) / 4, 0, 0)


def test_ppo_trains_two_networks(tmp_path: Path) -> None:
    sizes = {"path": "", "hidden": 8, "layers": 1, "intermediate": 16}
    n = 4 * 64 + 3 * 8 * 16 + 16 + 8
    ppo = costs.block(known(tmp_path, "ppo", model=sizes, cost={"tokens": 10}))
    assert ppo["weights"] == n and ppo["flops"] == 6 * n * 20 + 2 * n * 30
    strange = costs.block(known(tmp_path, "kto", model=sizes | {"path": "x"}, cost={"tokens": 10}))
    assert strange["flops"] is None


@pytest.mark.parametrize(
    ("name", "stage", "parents", "settings", "who"),
    [
        ("pretrain", "pretrain", (), {}, {costs.WEB: 1.0}),
        ("sft", "sft", ("pretrain",), {}, {costs.PEOPLE: 1.0}),
        ("dpo", "dpo", ("sft", "preferences"), {}, {"the model, graded by people": 1.0}),
        ("dpo_shuffled", "dpo", ("sft", "preferences"), {"shuffle_labels": True}, {costs.OWN: 1.0}),
        ("rlaif", "dpo", ("sft", "ai_preferences"), {}, {"the model, graded by a critic": 1.0}),
        ("ppo", "ppo", ("sft", "reward"), {}, {"the model, graded by a reward model": 1.0}),
        ("expert", "feedme", ("sft", "reward"), {"pick": "best"}, {"the model, graded by a reward model": 1.0}),
        ("expert_random", "feedme", ("sft", "reward"), {"pick": "random"}, {costs.OWN: 1.0}),
        ("sl_cai_lessons", "constitutional", ("sft", "critic"), {"imitate": "lessons"}, {costs.LESSONS: 1.0}),
        ("reward", "reward", ("sft", "preferences"), {}, {}),
        ("spin", "spin", ("sft",), {}, {costs.PEOPLE: 0.5, costs.OWN: 0.5}),
        ("a_stranger", "of_another_tree", ("sft",), {}, {costs.PEOPLE: 1.0}),
    ],
)
def test_who_wrote(tmp_path: Path, name: str, stage: str, parents: Any, settings: Any, who: Any) -> None:
    run = known(tmp_path, name, stage=stage, parents={p: f"{p}-000000" for p in parents}, settings=settings)
    assert costs.text_by(run) == who


def test_people_are_split_by_how_well_they_write(tmp_path: Path) -> None:
    run = known(tmp_path, "sft", parents={"pretrain": "pretrain-000000"})
    (run.path / "recipe.yaml").write_text("data: {source: world, world: {mix: {excellent: 3, rude: 1}}}")
    assert costs.text_by(run) == {"people, excellent": 0.75, "people, rude": 0.25}
    assert pyramid._who(costs.text_by(run)) == "people"
    (run.path / "recipe.yaml").write_text("data: {source: files, world: {mix: {excellent: 3, rude: 1}}}")
    assert costs.text_by(run) == {costs.PEOPLE: 1.0}


def test_what_stages_say_of_their_text_is_whole_and_has_a_colour() -> None:
    for stage in stages.STAGES:
        said = getattr(stages.module(stage), "TEXT_BY", None)
        assert not said or (sum(said.values()) == pytest.approx(1) and set(said) <= set(pyramid.WRITERS)), stage
    assert set(costs.OWN_BY.values()) <= set(pyramid.WRITERS)


def test_it_stands_in_the_ladder_and_in_the_figures(tmp_path: Path) -> None:
    """Every stage that cost something is in ladder.json; controls are in the bar of writers and not in the cake."""
    found = synthetic.ladder(tmp_path)
    block = report.ladder("tiny", found, "d", 1, bootstrap=100)["cost"]
    assert set(block) == set(found) and all(
        sum(b["text_by"].values()) == pytest.approx(1) for b in block.values() if b["text_by"]
    )
    assert len(pyramid.cake(found).data) == 4 and "SFT ×2" not in pyramid.cake(found).data[0].y
    drawn = [r for trace in pyramid.authors(found).data for r in trace.customdata]
    assert {r[0] for r in drawn} == {n for n, b in block.items() if b["text_by"]} and "dpo_shuffled" in {
        r[0] for r in drawn
    }
    assert [r["stage"] for r in pyramid.rows(found)][0] == "pretraining"
    assert pyramid.authors({}).to_json() and theme.short(5.98e12) == "5.98 T"


def test_the_stage_counts_whatever_the_comparison_was_made_from(tmp_path: Path) -> None:
    sizes = {"path": "", "hidden": 8, "layers": 1, "intermediate": 16}
    made = known(tmp_path, "pretrain", model=sizes, cost={"tokens": 10, "targets": 10})
    sft = known(tmp_path, "sft", model=sizes, cost={"tokens": 5, "targets": 2}, parents={"pretrain": made.id})
    compared = known(tmp_path, "compare", parents={"sft": sft.id})
    job = SimpleNamespace(parents={"compare": compared}, summary={})
    stages.module("cake").run(job)
    assert list(job.summary["costs"]) == ["pretrain", "sft"] and job.summary["costs"]["sft"]["tokens"] == 5
