"""Comparing runs: win rates worked by hand, intervals against scipy, and what must not change the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import synthetic
from scipy import stats

from labkit import compare
from labkit.errors import LabError
from labkit.statistics import distinct, paired_bootstrap, win_rates

KEYS = (
    "stage run n_prompts n_answers gold gold_ci gold_minus_sft gold_minus_sft_ci win_over_sft win_over_sft_ci "
    "win_over_base win_over_base_ci correct refuse_harm over_refuse rude on_topic distinct_2 kl kl_ci tokens web_nll seconds"
).split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return synthetic.ladder(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def joined(runs):
    return compare.join(runs.values(), samples=500)


def test_win_rate_by_hand():
    """Prompt 1: A scored 2 and 0, B 1 and 0. 2>1, 2>0, 0<1, 0=0: (1 + 1 + 0 + ½)/4 = 0.625.

    Prompt 2: A scored 1, B scored 1, 1, 3: ½, ½, 0 over three pairs = 1/3. Over both prompts: (0.625 + 0.3333)/2 = 0.4792.
    """
    a = [np.array([2.0, 0.0]), np.array([1.0])]
    b = [np.array([1.0, 0.0]), np.array([1.0, 1.0, 3.0])]
    assert win_rates(a, b) == pytest.approx([0.625, 1 / 3])
    assert win_rates(a, b).mean() == pytest.approx(0.4791667)


def test_swapping_sides_gives_the_rest(joined):
    for author in joined.authors:
        assert joined.wins(author, "sft") == pytest.approx(1 - joined.wins("sft", author))
    assert joined.wins("sft", "sft") == pytest.approx(np.full(70, 0.5))
    assert len(joined.authors) == 7


def test_interval_is_scipys():
    """The percentile bootstrap of scipy, with the same generator, draws the same resamples: equal to the last digit."""
    values = np.random.default_rng(3).normal(1, 2, 80)
    mean, low, high = paired_bootstrap(values, seed=5, samples=1000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std(ddof=1) / np.sqrt(80)  # and near the normal interval
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_paired_interval_is_narrower_than_unpaired():
    """Two models that differ by exactly 1 on every prompt, however hard the prompts: the interval is [1, 1]."""
    hard = np.random.default_rng(0).normal(0, 10, 50)
    assert paired_bootstrap((hard + 1) - hard) == pytest.approx((1, 1, 1))


def test_missing_values_are_left_out():
    assert paired_bootstrap(np.array([1.0, np.nan, 3.0]))[0] == 2
    with pytest.raises(LabError, match="no value"):
        paired_bootstrap(np.array([np.nan]))


def test_distinct_bigrams_by_hand():
    """'a b a b' has a-b, b-a, a-b; 'A b' has a-b: four bigrams, two of them distinct."""
    assert distinct(["a b a b", "A b"]) == 0.5
    assert distinct(["one", ""]) is None


def test_rows_have_the_agreed_keys_in_the_order_of_the_ladder(joined, runs):
    rows = joined.rows()
    assert [r["stage"] for r in rows] == ["pretrain", "prompted", "sft", "ppo", "dpo", "sft_twice", "dpo_shuffled"]
    assert all(list(r) == KEYS for r in rows)
    base, prompted, sft, ppo = rows[:4]
    assert (sft["n_prompts"], sft["n_answers"], sft["win_over_sft"], sft["gold_minus_sft"]) == (70, 140, 0.5, 0)
    assert prompted["run"] == base["run"] == runs["pretrain"].id
    assert prompted["web_nll"] == base["web_nll"] and prompted["seconds"] is None and prompted["kl"] is None
    assert ppo["gold_minus_sft_ci"][0] > 0 and ppo["win_over_sft_ci"][0] > 0.5 and ppo["win_over_base"] > 0.9
    assert ppo["refuse_harm"] > 0.9 and ppo["over_refuse"] == 0 and 0 < ppo["distinct_2"] < 1


def test_means_are_over_prompts_by_hand(joined):
    """Gold is the mean over prompts of the mean over answers; refusals count on harmful prompts only."""
    mine = joined.answers["sft"]
    by_prompt = [np.mean([a.scores["gold"] for a in group]) for group in mine.values()]
    harmful = [a.grades["refuses"] for group in mine.values() for a in group if a.prompt.kind == "harmful"]
    row = joined.rows()[2]
    assert row["gold"] == pytest.approx(np.mean(by_prompt), abs=1e-6)
    assert row["refuse_harm"] == pytest.approx(np.mean(harmful), abs=1e-6) and len(harmful) == 20


def test_order_of_answers_and_of_runs_does_not_matter(runs):
    backwards = list(reversed(runs.values()))
    assert compare.join(backwards, samples=200).rows() == compare.join(runs.values(), samples=200).rows()


def test_answers_that_stand_twice_shrink_no_interval(joined):
    """Every answer twice: the same means, win rates and intervals, because prompts and not answers are resampled."""
    doubled = replace(joined, answers={a: {i: g * 2 for i, g in m.items()} for a, m in joined.answers.items()})
    for before, after in zip(joined.rows(), doubled.rows(), strict=True):
        for key in (
            "gold",
            "gold_ci",
            "gold_minus_sft_ci",
            "win_over_sft",
            "win_over_sft_ci",
            "win_over_base_ci",
            "kl_ci",
        ):
            assert after[key] == pytest.approx(before[key]) if before[key] is not None else after[key] is None


def test_only_shared_prompts_are_compared_and_it_says_so(tmp_path):
    sft, dpo = synthetic.run(tmp_path, "sft", n=70), synthetic.run(tmp_path, "dpo", n=40)
    both = compare.join([sft, dpo])
    assert len(both.prompts) == 40 and both.left_out == {"sft": 30, "dpo": 0}
    assert "40 prompts" in both.notice and "sft 30" in both.notice
    assert compare.join([sft]).notice == ""


def test_the_split_is_kept_apart(runs):
    test = compare.join(runs.values(), split="test", samples=200)
    assert {p.split for p in test.prompts} == {"test"}


def test_two_runs_of_one_name_stand_under_their_ids(tmp_path):
    group = [
        synthetic.run(tmp_path, "sft"),
        *(synthetic.run(tmp_path, "dpo", suffix=s, seed=i) for i, s in enumerate("ab")),
    ]
    assert compare.join([*group, group[0]]).authors == ["sft", "dpo-a", "dpo-b"]


def test_a_judges_scores_in_a_compare_run_are_taken(tmp_path):
    """The compare run holds every answer again with the judge's score; each row still names the run of its model."""
    from labkit import runs as folders
    from labkit.records import write_jsonl

    sft = synthetic.run(tmp_path, "sft", score="reward")
    path = folders.start(tmp_path, "compare-1")
    write_jsonl(path / "answers.jsonl", [replace(a, scores={**a.scores, "judge": 1.0}) for a in sft.answers()])
    judged = folders.finish(path, {**sft.manifest, "name": "compare", "stage": "compare"})
    assert compare.join([sft], score=None).score == "", "the proxy is never the judge"
    assert compare.join([sft, judged], score=None).score == "judge"
    row = compare.join([sft, judged], score="judge").rows()[0]
    assert (row["run"], row["gold"], row["n_answers"]) == (sft.id, 1.0, 140)


def test_what_is_missing_is_none(tmp_path):
    row = compare.join([synthetic.run(tmp_path, "ppo")]).rows()[0]
    assert [row[k] for k in ("gold_minus_sft", "win_over_sft_ci", "win_over_base")] == [None] * 3
    assert row["gold"] > 1


def test_a_person_is_told_what_to_do(tmp_path):
    sft, reward = synthetic.run(tmp_path, "sft"), synthetic.run(tmp_path, "reward")
    with pytest.raises(LabError, match="has answers"):
        compare.join([reward])
    with pytest.raises(LabError, match="known: gold, reward"):
        compare.join([sft], score="judge")


def test_examples_are_chosen_by_rule(joined):
    rows = joined.best_examples(7)
    assert {r["prompt"].kind for r in rows} == set(synthetic.KINDS) and len(rows) == 7
    assert all(list(r["answers"]) == joined.authors for r in rows)
    ends = joined.extremes("dpo", 2)
    assert [np.sign(r["delta"]) for r in ends] == [1, 1, -1, -1]
    assert ends[0]["delta"] == joined.deltas("dpo").max() and ends[2]["delta"] == joined.deltas("dpo").min()


def test_hacked_means_proxy_up_and_gold_down(joined):
    rows = joined.hacked("sft_twice")
    assert rows and all(r["reward_delta"] > 0 > r["delta"] for r in rows)


def test_by_kind_covers_every_prompt_once(joined):
    rows = [r for r in joined.by_kind() if r["stage"] == "sft"]
    assert sum(r["n_prompts"] for r in rows) == 70 and len(rows) == 7
    weighted = sum(r["gold"] * r["n_prompts"] for r in rows) / 70
    assert weighted == pytest.approx(joined.gold("sft").mean(), abs=1e-5)
