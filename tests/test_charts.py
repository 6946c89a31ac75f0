"""Figures draw what they are given, with intervals, on a transparent ground, and their CSV is exactly what is drawn."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic

from labkit import charts, compare, curves, drawings, statistics, theme


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return synthetic.ladder(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def joined(runs):
    return compare.join(runs.values(), samples=200)


def rows_of(fig) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(charts.csv(fig))))


@pytest.fixture(scope="module")
def figures(runs, joined):
    rows = joined.rows()
    return {
        "ladder": charts.ladder(rows),
        "win_rate": charts.win_rate(rows),
        "win_over_base": charts.win_rate(rows, against="pretrain"),
        "by_kind": charts.by_kind(joined.by_kind()),
        "kl_frontier": charts.kl_frontier(rows),
        "predictor": charts.predictor(rows),
        "curves": charts.curves({n: r.metrics() for n, r in runs.items() if n in ("sft", "dpo")}, ["train/loss"]),
        "over_optimisation": charts.over_optimisation(runs["ppo"].metrics()),
        "cake": charts.cake(runs),
        "calibration": charts.calibration(runs["reward"].summary["calibration"]),
        "histogram": charts.histogram({a: joined.gold(a) for a in ("sft", "ppo")}),
        "agreement": charts.agreement([{"who": "two annotators", "agreement": 0.73, "ci": [0.7, 0.76]}]),
    }


def test_every_figure_reads_on_light_and_dark_and_gives_its_data(figures):
    for name, fig in figures.items():
        drawn = json.loads(fig.to_json())
        assert drawn["layout"]["paper_bgcolor"] == drawn["layout"]["plot_bgcolor"] == "rgba(0,0,0,0)", name
        assert drawn["layout"]["title"]["text"] and drawn["layout"]["width"] == 720, name
        assert rows_of(fig), name
        assert len(fig.to_json()) < 60_000, name
    assert len(figures) == 12


def test_the_colours_read_on_white_and_on_black():
    """WCAG contrast of every stage's colour, 2.4:1 or more on white and on near-black (#181818); text grey 4:1."""

    def luminance(paint: str) -> float:
        parts = [int(paint[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        high, low = sorted((luminance(a), luminance(b)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for name, (_, paint) in theme.STAGES.items():
        least = 2.2 if name in compare.CONTROLS else 2.6
        assert min(contrast(paint, "#ffffff"), contrast(paint, "#181818")) > least, name
    assert min(contrast(theme.INK, "#ffffff"), contrast(theme.INK, "#181818")) > 4
    assert len({paint for _, paint in theme.STAGES.values()}) >= 9


def test_csv_is_what_is_drawn(joined, figures):
    rows = {r["stage"]: r for r in joined.rows()}
    said = rows_of(figures["ladder"])
    assert [r["stage"] for r in said] == list(rows)
    for r in said:
        assert [float(r["gold"]), float(r["low"]), float(r["high"])] == [
            rows[r["stage"]]["gold"],
            *rows[r["stage"]]["gold_ci"],
        ]


def test_intervals_are_drawn_at_their_ends(joined, figures):
    """The error bar above is high − mean, below mean − low."""
    ppo = next(r for r in joined.rows() if r["stage"] == "ppo")
    trace = next(t for t in figures["win_rate"].data if t.y[0] == "PPO")
    ends = (trace.x[0] + trace.error_x.array[0], trace.x[0] - trace.error_x.arrayminus[0])
    assert ends == pytest.approx((ppo["win_over_sft_ci"][1], ppo["win_over_sft_ci"][0]))


def test_titles_say_what_is_seen(figures):
    assert figures["ladder"].layout.title.text.startswith("PPO stands highest")
    assert figures["win_rate"].layout.title.text == "PPO and DPO win over SFT more often than not"
    assert "Every model wins over the base" in figures["win_over_base"].layout.title.text
    assert "The proxy rose" in figures["over_optimisation"].layout.title.text
    assert "gold fell" in figures["over_optimisation"].layout.title.text
    assert "Pretraining is the cake" in figures["cake"].layout.title.text


def test_over_optimisation_says_so_only_when_it_happens():
    """Proxy 0 → 1 in both; gold 0 → 1 in the first, 0 → 1 → −1 in the second."""
    steps = range(1, 21)
    fine = [{"step": s, "eval/reward": s / 20, "eval/gold": s / 20, "eval/kl": s} for s in steps]
    bad = [{**r, "eval/gold": 1 - abs(r["step"] - 7) / 6.5} for r in fine]
    assert "rose together" in charts.over_optimisation(fine).layout.title.text
    assert "gold fell from 1.00 to −1.00" in charts.over_optimisation(bad).layout.title.text
    assert charts.over_optimisation([{"step": 1, "rollout/reward": 1}]).layout.title.text.endswith("PPO ran")


def test_smoothing_keeps_a_constant_and_a_single_point():
    """A running average of 3, 3, 3, ... is 3 to its very ends, and of one value that value."""
    assert curves.smooth([3.0] * 50) == pytest.approx(np.full(50, 3.0))
    assert curves.smooth([2.0]) == pytest.approx([2.0])
    noisy = np.random.default_rng(0).normal(0, 1, 400)
    assert curves.smooth(noisy).std() < 0.5 * noisy.std()


def test_bits_of_supervision_by_hand():
    """1,000 tokens of a vocabulary of 1,024 tell at most 1,000 · log2 1,024 = 10,000 bits; 500 pairs 500 bits."""
    model = {"vocabulary": 1024}
    assert charts.bits({"stage": "pretrain", "model": model, "cost": {"targets": 1000}}) == 10_000
    assert charts.bits({"stage": "dpo", "model": model, "cost": {"targets": 500}}) == 500
    shuffled = {"stage": "dpo", "model": model, "cost": {"targets": 500}, "settings": {"shuffle_labels": True}}
    assert charts.bits(shuffled) == 0
    assert charts.bits({"stage": "dpo", "cost": {"targets": 500, "bits": 7}}) == 7


def test_wilson_interval_is_scipys():
    from scipy.stats import binomtest

    theirs = binomtest(30, 40).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(0.75, 40) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_figures_of_hardly_any_runs_do_not_fail(tmp_path):
    row = compare.join([synthetic.run(tmp_path, "ppo")], samples=100)
    for fig in (
        charts.ladder(row.rows()),
        charts.win_rate(row.rows()),
        charts.kl_frontier(row.rows()),
        charts.predictor([]),
    ):
        assert fig.to_json()
    assert (
        charts.cake({}).to_json() and charts.curves({}, ["train/loss"]).to_json() and charts.calibration([]).to_json()
    )


def test_names_are_escaped():
    fig = charts.agreement([{"who": "<img src=x onerror=alert(1)>", "agreement": 0.5}])
    assert "<img" not in fig.data[0].y[0] and "<img" not in fig.layout.annotations[0].y


def test_the_live_drawing_is_small_fast_and_safe():
    points = {f"train/<b>{i}": [(float(x), float(np.sin(x / 50))) for x in range(3000)] for i in range(4)}
    drawings.live_svg(points)
    began = time.perf_counter()
    svg = charts.live_svg(points)
    assert time.perf_counter() - began < 0.05  # about 2 ms on a quiet machine
    assert len(svg) < 10_000 and "<b>" not in svg
    assert ElementTree.fromstring(svg).attrib["viewBox"] == "0 0 520 160"
    lines = re.findall(r'points="([^"]+)"', svg)
    assert len(lines) == 4 and all(len(line.split()) <= drawings.POINTS + 1 for line in lines)
    assert "waiting" in charts.live_svg({}) and ElementTree.fromstring(charts.live_svg({"a": [(1, 2.0)]})) is not None


def test_the_lineage_draws_each_run_right_of_its_parents(runs):
    svg = ElementTree.fromstring(charts.lineage(runs))
    left = [float(r.attrib["x"]) for r in svg.iter("{http://www.w3.org/2000/svg}rect")]
    names = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")][::2]
    at = dict(zip(names, left, strict=True))
    assert at["pretraining"] < at["SFT"] < at["preferences"] < at["reward model"] < at["PPO"] and len(at) == 9
