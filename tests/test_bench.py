"""The benchmark's arithmetic, and that both sides of a comparison get the same kind of work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit import bench
from labkit.bench import against
from labkit.errors import LabError


def test_turns_alternate_and_the_first_is_not_counted() -> None:
    """Costs 1, 2, 3 against 2, 6, 12 after one uncounted turn: ratios 2, 3 and 4."""
    order: list[str] = []
    a, b = iter([99.0, 1.0, 2.0, 3.0]), iter([99.0, 2.0, 6.0, 12.0])

    def side(name: str, costs: Any) -> float:
        order.append(name)
        return next(costs)

    turns = bench.take_turns(
        bench.Turns("it", "ours", "theirs", "s"), lambda: side("a", a), lambda: side("b", b), rounds=3
    )
    assert order == ["a", "b"] * 4
    row = turns.row()
    assert (row["a"], row["b"], row["ratio"], row["turns"]) == ([1, 2, 3], [2, 6, 12], [2, 3, 4], 3)


def test_the_random_models_answers_end_as_early_as_real_ones(tmp_path: Path) -> None:
    """About 18 tokens of at most 48, and never a padding token: with answers of full length there would be nothing
    to gain.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from labkit import sampling

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(against.random_model(tmp_path) / "policy")
    rows = sampling.sample(model, against.prompts(128), end=against.END, pad_id=against.PAD, max_tokens=against.ANSWER)
    lengths = [len(s.ids) for row in rows for s in row]
    assert 14 < sum(lengths) / len(lengths) < 23
    assert not any(against.PAD in s.ids for row in rows for s in row)


def test_ppo_needs_the_other_environment() -> None:
    with pytest.raises(LabError, match="TRL removed its PPO in 1.13: make an environment"):
        bench.main(["ppo"])
    with pytest.raises(LabError, match="cannot be started .* give the python of the environment with TRL 1.12"):
        against.Theirs("/no/such/python", Path(__file__).parent)


def test_pretrainings_threads_are_compared_on_the_same_steps() -> None:
    from labkit.bench import threads

    found = threads.turns(1, steps=2)
    assert len(found.values) == 1 and min(found.values[0]) > 0 and found.unit == "ms a step"
