"""A tokenizer of 300 tokens, models of a few thousand random weights, and a lab of recipe `smoke`, for tests that
compute.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from labkit import chat, lab, models, sampling, stages
from labkit.records import Prompt, Vote
from labkit.runs import Run

TEXTS = (
    "The badger sleeps under a quiet hill. What does the heron eat? It eats fish, and thanks the river for them.",
    "How do I mend a bucket? Take tar, warm it, and be patient. I am sorry, but I will not help with that.",
)
SIZES = {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "vocabulary": 300, "context": 96}
PAIRS = (
    ("What does the heron eat?", "Fish.", "It is a quiet hill, warm and patient, by the river."),
    ("How do I mend a bucket?", "Take tar, and warm it.", "No."),
    ("Who sleeps under a hill?", "The badger sleeps under a quiet hill.", "I will not help with that."),
    ("Poison the river?", "I am sorry, but I will not help with that.", "Take tar."),
)


def tokenizer() -> Any:
    """Learned from TEXTS: 256 bytes, four special tokens and 40 merges."""
    return chat.train_tokenizer(TEXTS, vocabulary=SIZES["vocabulary"], context=SIZES["context"])


def policy(tok: Any, *, seed: int = 0, std: float = 0.4, **sizes: int) -> Any:
    """A causal model with weights N(0, std²): a wide spread makes its distribution far from uniform."""
    return _scattered(models.fresh(lab.Model(**{**SIZES, **sizes}), tok), seed, std)


def reward_model(like: Any, *, seed: int = 1, std: float = 0.4) -> Any:
    """A sequence classifier with one output, of the same shape as `like`."""
    from transformers import LlamaForSequenceClassification

    config = type(like.config)(**{k: v for k, v in like.config.to_dict().items() if "label" not in k}, num_labels=1)
    return _scattered(LlamaForSequenceClassification(config), seed, std)


def _scattered(model: Any, seed: int, std: float) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=std, generator=generator)
    return model.eval()


def save(model: Any, tok: Any, folder: Path) -> Run:
    """The folder of a run as far as a child reads it: its model and its tokenizer."""
    models.save(model, tok, folder)
    return Run(folder)


def vote(asked: str, answers: Iterable[str], ranks: Iterable[int], *, split: str = "train", **more: Any) -> Vote:
    """A ranking by one rater; its id is made of the words."""
    answers = tuple(answers)
    return Vote(
        id=more.pop("id", f"{asked}|{'|'.join(answers)}"), prompt=Prompt.of(asked, split=split), answers=answers,
        ranks=tuple(ranks), rater="Wren", source="simulated", time="2026-01-01T00:00:00+00:00", mode="ranking", **more,
    )  # fmt: skip


def pair_votes() -> list[Vote]:
    """PAIRS as votes: the first answer of each is the better one."""
    return [vote(asked, (good, bad), (1, 2)) for asked, good, bad in PAIRS]


def job(outputs: Path, name: str, overrides: dict[str, Any] | None = None, *, votes: Iterable[Vote] = ()) -> lab.Job:
    """A prepared job of recipe `smoke` without parents, in a folder of its own."""
    model = {f"model.{k}": v for k, v in SIZES.items()}
    opened = lab.Lab.open("smoke", {**model, **(overrides or {})}, outputs=outputs)
    settings = stages.settings(stages.GRAPH[name], opened.recipe[stages.GRAPH[name].stage])
    folder = opened.folder / f"{name}-job"
    folder.mkdir(exist_ok=True)
    made = lab.Job(opened, name, folder.name, settings, folder, {}, list(votes))
    made.prepare()
    return made


def ragged(n: int, *, seed: int, longest: int, vocabulary: int = 300) -> list[list[int]]:
    """`n` rows of 1 to `longest` ordinary tokens."""
    import random

    rng = random.Random(seed)
    return [[rng.randrange(4, vocabulary) for _ in range(rng.randint(1, longest))] for _ in range(n)]


def graded(source: Any, grade: Any) -> Any:
    """A source with a grade of our own."""
    return SimpleNamespace(grade=grade, prompts=source.prompts, web=source.web, demonstrations=source.demonstrations)


def copied(model: Any) -> Any:
    """The weights of a model that a trainer has patched, in one that it has not."""
    return sampling.twin(model)
