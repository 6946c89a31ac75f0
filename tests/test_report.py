"""The report: one offline file that reads well with all runs and with few, and a ladder.json that is the same each time."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from dataclasses import replace

import pytest
import synthetic

from labkit import compare, findings, report


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    runs = synthetic.ladder(folder / "runs")
    page = report.write(synthetic.lab(folder / "home"), runs=runs)
    return runs, page, page.read_text(encoding="utf-8")


def own(text: str) -> str:
    """The page without plotly's own script."""
    return re.sub(r"<script>(?!\nconst drawn).*?</script>", "", text, count=1, flags=re.S)


def test_the_page_is_one_offline_file(made):
    _, page, text = made
    assert page.stat().st_size < 6_000_000
    assert text.count("plotly.js v") == 1 or text.count("* plotly.js") == 1
    ours = own(text)
    assert len(ours) < 600_000
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", ours)
    assert not re.findall(r"""https?://(?!www\.w3\.org/2000/svg)""", ours) and "@import" not in ours
    assert "prefers-color-scheme: dark" in ours and "@media print" in ours and 'name="viewport"' in ours


def test_model_text_is_text(made):
    """The synthetic base model answers one test prompt with a script."""
    runs, _, text = made
    wrote = [a.text for a in runs["pretrain"].answers("test") if a.prompt.id == "test-000"]
    assert "<script>alert(1)</script> & more" in wrote
    assert "<script>alert(1)" not in text


def test_sections_come_in_the_readers_order(made):
    ids = re.findall(r'<section id="(\w+)"', made[2])
    assert ids == "ladder wins kinds predictor reward optimisation cake curves samples lineage measured".split()


def test_every_figure_has_its_data_beside_it(made):
    _, page, text = made
    names = re.findall(r'id="fig-(\w+)"', text)
    assert len(names) == len(set(names)) >= 12
    for name in names:
        uri = re.search(rf'href="data:text/csv;charset=utf-8;base64,([^"]+)" download="{name}.csv"', text)
        inside = base64.b64decode(uri.group(1)).decode()
        assert inside == (page.parent / "figures" / f"{name}.csv").read_text(encoding="utf-8")
        assert list(csv.DictReader(io.StringIO(inside))), name
        drawing = re.search(rf'data-for="fig-{name}">(.*?)</script>', text, re.S).group(1)
        assert json.loads(drawing)["data"], name


def test_ladder_json_is_the_same_each_time(made, tmp_path):
    runs, page, _ = made
    again = report.write(synthetic.lab(tmp_path), runs=runs)
    first = (page.parent / "ladder.json").read_bytes()
    assert (again.parent / "ladder.json").read_bytes() == first
    content = json.loads(first)
    assert list(content) == [
        "recipe",
        "recipe_digest",
        "seed",
        "split",
        "score",
        "notice",
        "rows",
        "reward",
        "checks",
        "cost",
        "dialogue",
    ]
    assert content["rows"][0]["n_prompts"] == 70 and content["split"] == "test" and content["score"] == "gold"
    direct = report.ladder("tiny", runs, "0123456789ab", 1, bootstrap=500)
    assert json.loads(json.dumps(direct)) == content


def test_only_the_test_split_is_read(made):
    prompts = set(re.findall(r"\((validation|test|train) \d+\)", own(made[2])))
    assert prompts == {"test"}


def test_claims_are_computed_and_hold_here(made):
    runs, _, text = made
    claims = report.ladder("tiny", runs, "d", 1, bootstrap=500)["checks"]
    assert [k["claim"] for k in claims[:4]] == [
        "The prompted base stands above the base",
        "SFT stands above the prompted base",
        "DPO stands above SFT",
        "PPO stands above SFT",
    ]
    assert all(k["holds"] for k in claims) and len(claims) == 14
    assert "All 14 claims made beforehand hold." in text


def test_claims_that_fail_say_so(made):
    """With PPO's and SFT's answers exchanged, PPO no longer stands above SFT, nor wins, nor beats the control."""
    c = compare.join(made[0].values(), split="test", samples=200)
    swapped = replace(c, answers={**c.answers, "ppo": c.answers["sft"], "sft": c.answers["ppo"]})
    claims = findings.checks(swapped, {})
    verdicts = {k["claim"]: k["holds"] for k in claims}
    assert verdicts["PPO stands above SFT"] is False and verdicts["DPO stands above SFT"] is False
    assert verdicts["PPO refuses at least 90 % of harmful prompts"] is False
    title, paragraph = findings.headline(swapped, claims)
    assert title.startswith("SFT stands highest") and "what failed stands below" in paragraph


@pytest.mark.parametrize("only", [("ppo",), ("pretrain",), ("preferences", "reward"), ("pretrain", "sft", "dpo")])
def test_it_reads_with_few_runs(tmp_path, only):
    runs = synthetic.ladder(tmp_path / "runs", only=only, n=21)
    page = report.write(synthetic.lab(tmp_path / "home"), runs=runs)
    text, content = own(page.read_text(encoding="utf-8")), json.loads((page.parent / "ladder.json").read_text())
    assert "None" not in re.sub(r"<script.*?</script>", "", text, flags=re.S) and "nan" not in text.lower().split()
    assert ("No answers were compared" in text) == (not content["rows"])
    assert 'id="lineage"' in text


def test_a_judge_takes_golds_place(tmp_path):
    runs = synthetic.ladder(tmp_path / "runs", only=("sft", "dpo"), score="judge")
    content = report.ladder("small", runs, "d", 1, bootstrap=200)
    assert content["score"] == "judge" and content["rows"][1]["gold_minus_sft_ci"][0] > 0
    page = report.write(synthetic.lab(tmp_path / "home"), runs=runs).read_text(encoding="utf-8")
    assert "judge score" in page and "reward model trained on the half of the pairs" in page


def test_the_proxy_is_never_the_judge(tmp_path):
    """Answers that only the reward model has scored are not compared at all."""
    runs = synthetic.ladder(tmp_path, only=("sft", "ppo"), score="reward")
    content = report.ladder("small", runs, "d", 1)
    assert content["score"] is None and content["rows"] == []


def test_reward_figures_are_read_by_split(tmp_path):
    run = synthetic.run(tmp_path, "reward")
    nested = replace(run)
    nested.__dict__["manifest"] = {
        **run.manifest,
        "summary": {"test": run.summary, "validation": {"reward_accuracy": 0.1}},
    }
    assert report.measured(nested, "test") == report.measured(run, "test")
    assert report.measured(nested, "validation")["reward_accuracy"] == 0.1
