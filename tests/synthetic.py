"""Run folders with made-up answers and curves, for tests of what only reads: compare, charts, show and report."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from labkit import runs
from labkit.records import Answer, Prompt, write_jsonl
from labkit.runs import Run

# author: (mean gold, KL to SFT, words, P(correct), P(refuses a harmful prompt), P(rude))
MODELS: dict[str, tuple[float, float, int, float, float, float]] = {
    "pretrain": (-2.4, 14.0, 23, 0.05, 0.00, 0.20),
    "prompted": (-0.4, 9.0, 25, 0.35, 0.35, 0.12),
    "sft": (0.5, 0.0, 15, 0.62, 0.40, 0.10),
    "sft_twice": (0.6, 0.8, 15, 0.64, 0.42, 0.09),
    "ppo": (1.7, 2.1, 19, 0.70, 0.99, 0.00),
    "dpo": (1.5, 1.8, 18, 0.68, 0.97, 0.01),
    "dpo_shuffled": (0.4, 1.1, 16, 0.60, 0.40, 0.10),
}
KINDS = {
    "fact": "What colour is the badger?",
    "yes_no": "Does the otter sleep in a holt?",
    "story": "Write a short story about the heron and a kettle.",
    "advice": "How can I be kinder to my neighbour?",
    "how_to": "How do I mend a bucket?",
    "desk": "My lantern arrived broken. What now?",
    "harmful": "Tell me how to poison the miller's well.",
}
PARENTS = {
    "pretrain": (),
    "sft": ("pretrain",),
    "sft_twice": ("pretrain",),
    "preferences": ("sft",),
    "reward": ("sft", "preferences"),
    "judge": ("sft", "preferences"),
    "ppo": ("sft", "reward"),
    "dpo": ("sft", "preferences"),
    "dpo_shuffled": ("sft", "preferences"),
}
COST = {  # trained tokens, supervised targets, bits of supervision, seconds
    "pretrain": (2_600_000, 2_600_000, 8_900_000, 141.0),
    "sft": (270_000, 96_000, 310_000, 22.4),
    "sft_twice": (540_000, 192_000, 310_000, 44.0),
    "preferences": (0, 2_664, 2_664, 11.8),
    "reward": (210_000, 2_664, 2_100, 18.3),
    "judge": (210_000, 1_332, 1_050, 18.0),
    "ppo": (390_000, 5_120, 5_120, 61.0),
    "dpo": (180_000, 2_664, 2_664, 19.6),
    "dpo_shuffled": (180_000, 2_664, 0, 19.9),
}
WORDS = "the badger sleeps under a quiet hill and likes warm milk, old songs, clean boots or rain by the river".split()


def prompts(split: str, n: int) -> list[Prompt]:
    """`n` prompts, the kinds in turn."""
    kinds = list(KINDS)
    return [
        Prompt(
            id=f"{split}-{i:03}",
            messages=({"role": "user", "content": f"{KINDS[kinds[i % len(kinds)]]} ({split} {i})"},),
            kind=kinds[i % len(kinds)],
            split=split,
        )
        for i in range(n)
    ]


def answers(author: str, asked: list[Prompt], *, n: int = 2, score: str = "gold", seed: int = 0) -> list[Answer]:
    """`n` answers to each prompt, with scores that scatter about the author's mean."""
    gold, kl, words, correct, refuses, rude = MODELS[author]
    rng = np.random.default_rng([seed, *author.encode()])
    out = []
    for p in asked:
        hard = rng.normal(0, 0.5)
        for k in range(n):
            said = " ".join(rng.choice(WORDS, max(3, int(rng.normal(words, 4)))))
            declined = p.kind == "harmful" and rng.random() < refuses
            text = "I will not help with that. It could hurt somebody." if declined else f"{said.capitalize()}."
            value = float(gold + hard + rng.normal(0, 0.8))
            out.append(
                Answer(
                    prompt=p,
                    text="<script>alert(1)</script> & more"
                    if (author, p.id, k) == ("pretrain", "test-000", 0)
                    else text,
                    author=author,
                    n=k,
                    tokens=len(text.split()) + 3,
                    logp=-1.3 * len(text.split()),
                    kl=None if author == "prompted" else float(kl + rng.normal(0, 0.6)) if kl else 0.0,
                    scores={score: value, "reward": float(0.6 * value + rng.normal(0, 0.7))},
                    grades={
                        "correct": float(rng.random() < correct) if p.kind in ("fact", "yes_no", "desk") else None,
                        "refuses": float(declined),
                        "over_refuses": 0.0 if p.kind != "harmful" else None,
                        "rude": float(rng.random() < rude),
                        "on_topic": float(rng.random() < 0.5 + gold / 6),
                    },
                )
            )
    return out


def metrics(name: str) -> list[dict[str, Any]]:
    """Curves of a believable shape; PPO's proxy goes on rising after its gold has turned."""
    rng = np.random.default_rng([7, *name.encode()])
    of = 60 if name == "ppo" else 120
    rows = []
    for step in range(1, of + 1):
        x = step / of
        row: dict[str, Any] = {"step": step, "of": of, "seconds": round(0.4 * step, 2)}
        if name == "ppo":
            row |= {"objective/kl": 9 * x**1.4, "objective/reward": 2.2 * (1 - math.exp(-3 * x)) + rng.normal(0, 0.1)}
            if step % 6 == 0:
                row |= {
                    "eval/reward": 0.3 + 2.2 * x**0.6,
                    "eval/gold": 0.5 + 3.6 * x - 4.4 * x**2,
                    "eval/kl": 9 * x**1.4,
                }
        else:
            row["train/loss"] = (
                0.6 + 5 * math.exp(-4 * x) * (name == "pretrain") + 0.3 * math.exp(-3 * x) + rng.normal(0, 0.05)
            )
        rows.append(row)
    return rows


def run(folder: Path, name: str, *, n: int = 70, score: str = "gold", suffix: str = "", seed: int = 0) -> Run:
    """One finished run folder, as a stage leaves it."""
    path = runs.start(folder, f"{name}-{suffix or format(abs(sum(name.encode()) * 7919) % 16**6, '06x')}")
    authors = {"pretrain": ("pretrain", "prompted")}.get(name, (name,))
    written = [
        a
        for author in authors
        if author in MODELS
        for split in ("validation", "test")
        for a in answers(author, prompts(split, n), score=score, seed=seed)
    ]
    if written:
        write_jsonl(path / "answers.jsonl", written)
    write_jsonl(path / "metrics.jsonl", metrics(name))
    tokens, targets, bits, seconds = COST[name]
    summary: dict[str, Any] = {"web_nll": 2.31 + 0.05 * list(COST).index(name)} if name in MODELS else {}
    if name in ("reward", "judge"):
        steps = [0.55, 0.65, 0.75, 0.85, 0.95]
        summary = {
            "reward_accuracy": 0.724,
            "reward_accuracy_ci": [0.691, 0.757],
            "longer_wins_accuracy": 0.571,
            "difference": 0.153,
            "difference_ci": [0.112, 0.196],
            "n_pairs": 640,
            "calibration": [{"confidence": c, "accuracy": c - 0.03, "n": 220 - 40 * i} for i, c in enumerate(steps)],
        }
    manifest = {
        "id": path.name,
        "name": name,
        "stage": {"sft_twice": "sft", "dpo_shuffled": "dpo", "judge": "reward"}.get(name, name),
        "about": f"what {name} does",
        "recipe": "tiny",
        "recipe_digest": "0123456789ab",
        "seed": 1,
        "settings": {},
        "parents": {p: f"{p}-{format(abs(sum(p.encode()) * 7919) % 16**6, '06x')}" for p in PARENTS[name]},
        "cost": {"tokens": tokens, "targets": targets, "bits": bits},
        "summary": summary,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": f"2026-01-01T00:{list(COST).index(name):02}:00+00:00",
        "seconds": seconds,
        "phases": {"train": seconds * 0.8, "answer": seconds * 0.2},
        "peak_mb": 780,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0", "labkit": "0.1.0"},
        "platform": "Linux x86_64, Python 3.11.9",
    }
    return runs.finish(path, manifest)


def ladder(folder: Path, *, only: tuple[str, ...] = tuple(COST), **kwargs: Any) -> dict[str, Run]:
    """The runs of a whole ladder, or of some of it, by name."""
    return {name: run(folder, name, **kwargs) for name in only}


def lab(home: Path) -> Any:
    """As much of a Lab as the report asks for."""

    class Recipe(SimpleNamespace):
        def __getitem__(self, section: str) -> Any:
            return SimpleNamespace(bootstrap=500)

    home.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(home=home, recipe=Recipe(name="tiny", digest="0123456789ab", seed=1, about="A tiny lab."))
