"""What a stage cost, and who wrote the text that its model was trained to predict: plain figures of finished runs.

Floating-point operations follow Kaplan et al. (2020), section 2.1: 6·N·D to train on D tokens, 2·N·D to write or to score them,
with N the weights that are no embeddings. Attention and the output layer are left out; at the embedded model's size the output
layer alone adds half as much again. Answers to the evaluation prompts are nobody's cost: every model gives the same number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from labkit import runs
from labkit.records import read_jsonl

if TYPE_CHECKING:
    from labkit.runs import Run

WEB, PEOPLE, LESSONS = "the web", "people", "people's lessons"
OWN = "the model, graded by nobody"
OWN_BY = {  # a parent that grades → who wrote
    "critic": "the model, graded by a critic",
    "ai_preferences": "the model, graded by a critic",
    "reward": "the model, graded by a reward model",
    "preferences": "the model, graded by people",
}
TRAINED = {"ppo": 2}  # policy and value network
Reads = tuple[float, float, float]


def bits(manifest: Mapping[str, Any]) -> float:
    """Bits of supervision that a run was given: as it says itself, else at most log2(vocabulary) a token and 1 a pair.

    A token of text can tell no more than log2 of the vocabulary; a comparison or a verdict on an answer, one bit. Labels
    that were shuffled tell nothing.
    """
    cost = manifest.get("cost", {})
    if "bits" in cost:
        return float(cost["bits"])
    each = (
        math.log2(manifest.get("model", {}).get("vocabulary", 1024))
        if manifest["stage"] in ("pretrain", "sft")
        else 1.0
    )
    return 0.0 if manifest.get("settings", {}).get("shuffle_labels") else each * cost.get("targets", 0)


def flops(weights: float, *, trained: float = 0, read: float = 0) -> float:
    """Floating-point operations: 6 a weight and token trained on (forward 2, backward 4), 2 a weight and token only read."""
    return 6 * weights * trained + 2 * weights * read


def weights(run: Run) -> int | None:
    """How many weights are no embeddings: counted in the file, or by the recipe's sizes where it was cleaned; None if unknown.

    Of the embedded model: layers · (4 d² + 3 d · ff + 2 d) + d, for attention, feed-forward layer and norms.
    """
    counted = [n for file in (run.path / "model").glob("*.safetensors") for name, n in _shapes(file) if _counts(name)]
    if counted:
        return sum(counted)
    m = run.manifest.get("model") or {}
    if m.get("path") or not m:
        return None
    d = m["hidden"]
    return m["layers"] * (4 * d * d + 3 * d * m["intermediate"] + 2 * d) + d


def _counts(name: str) -> bool:
    """Token embeddings, positions and an output layer of its own are no weights of the body; LoRA's additions are merged."""
    return not any(part in name for part in ("embed", "lm_head", ".wte.", ".wpe."))


def _shapes(file: Any) -> Iterable[tuple[str, int]]:
    """Names and sizes from the header of a safetensors file: 8 bytes of length, then JSON."""
    with open(file, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    return [(name, math.prod(info["shape"])) for name, info in header.items() if name != "__metadata__"]


def reads(run: Run) -> Reads:
    """Tokens trained on, written, and only scored: as recorded in `cost` (tokens, sampled, scored), else worked out.

    What is worked out: PPO trains on what it writes, and reference and reward model score it; a reference scores its pairs
    once; where a run kept the texts themselves, their letters are counted in tokens as SFT writes them.
    """
    m = run.manifest
    cost, s, stage = m.get("cost", {}), m.get("settings", {}), m["stage"]
    tokens = float(cost.get("tokens", 0))
    once = tokens / (s.get("epochs") or 1)
    found: Reads = (tokens, 0.0, 0.0)
    if stage == "best_of_n":
        found = (0.0, tokens, tokens)
    elif stage == "ppo":
        found = (tokens, once, 2 * once)
    elif stage in ("dpo", "kto", "spin"):
        found = (tokens, _sampled(run) if stage == "spin" else 0.0, once)
    elif stage in ("preferences", "feedme", "constitutional"):
        written = _sampled(run)
        found = (tokens, written, written if s.get("by") == "reward" else 0.0)
    elif stage == "reward":
        found = (tokens or _ranked(run), 0.0, 0.0)
    trained, sampled, scored = found
    return trained, float(cost.get("sampled", sampled)), float(cost.get("scored", scored))


def _sampled(run: Run) -> float:
    """About how many tokens a stage let its model write."""
    s, letter = run.manifest.get("settings", {}), _tokens_a_letter(run)
    if run.manifest["stage"] == "preferences":
        texts = {(v["prompt"]["id"], a) for v in _votes(run) if v["source"] != "import" for a in v["answers"]}
        return round(letter * sum(len(a) for _, a in texts))
    if run.manifest["stage"] == "constitutional":
        rows = read_jsonl(run.path / "revisions.jsonl")
        return round(letter * sum(len(r[k]) for r in rows for k in ("before", "critique", "after")))
    if s.get("by") == "votes":
        return 0.0
    each = s.get("prompts", 0) * s.get("n", 0) if run.manifest["stage"] == "feedme" else s.get("pairs", 0)
    return round(s.get("rounds", 1) * each * _tokens_an_answer(run))


def _ranked(run: Run) -> float:
    """About how many tokens a reward model was trained on: each ranked answer behind its prompt, `epochs` times."""
    letters = pairs = 0
    for vote in _votes(run):
        if vote["prompt"]["split"] == "train" and len(vote["answers"]) > 1:
            asked = sum(len(m["content"]) for m in vote["prompt"]["messages"])
            letters += sum(asked + len(a) for a in vote["answers"])
            pairs += len(vote["answers"]) * (len(vote["answers"]) - 1) // 2
    used = min(1.0, run.manifest["cost"].get("targets", 0) / pairs) if pairs else 0.0
    return round(letters * used * _tokens_a_letter(run) * run.manifest["settings"].get("epochs", 1))


def _votes(run: Run) -> list[dict[str, Any]]:
    return list(read_jsonl(run.path / "votes.jsonl"))


@lru_cache(maxsize=256)
def _written(run: Run) -> tuple[int, int, int]:
    """Answers, tokens and letters of the run, or of the nearest one that it was made from, on the validation prompts."""
    for one in runs.lineage(run):
        rows = [r for r in read_jsonl(one.path / "answers.jsonl") if r["prompt"]["split"] == "validation"]
        if letters := sum(len(r["text"]) for r in rows):
            return len(rows), sum(r["tokens"] for r in rows), letters
    return 0, 0, 0


def _tokens_a_letter(run: Run) -> float:
    _, tokens, letters = _written(run)
    return tokens / letters if letters else 0.25


def _tokens_an_answer(run: Run) -> float:
    answers, tokens, _ = _written(run)
    return tokens / answers if answers else 0.0


def text_by(run: Run) -> dict[str, float]:
    """Shares of who wrote the text that the run's model was trained to predict; empty where none was.

    The run may say it (`text_by` in its summary), or the stage file (`TEXT_BY`); else the parents do: who grades what the model wrote, or people where nobody does.
    A label that is a coin's, or an answer taken at random, is graded by nobody. People are split by how well they write.
    """
    from labkit import stages

    m = run.manifest
    settings, parents = m.get("settings", {}), m.get("parents", {})
    said = m.get("summary", {}).get("text_by")
    if said is None and m["stage"] in stages.STAGES:
        said = getattr(stages.module(m["stage"]), "TEXT_BY", None)
    if said is None:
        said = {next((by for p, by in OWN_BY.items() if p in parents), PEOPLE if parents else WEB): 1.0}
        if settings.get("pick") == "random" or settings.get("shuffle_labels"):
            said = {OWN: 1.0}
        elif settings.get("imitate") == "lessons":
            said = {LESSONS: 1.0}
    recipe = run.path / "recipe.yaml"
    mix = _mix(recipe.read_text(encoding="utf-8")) if recipe.exists() else {}
    return {
        name: round(share * part, 6)
        for who, share in said.items()
        if share
        for name, part in ({f"{who}, {q}": p for q, p in mix.items()} if who == PEOPLE and mix else {who: 1.0}).items()
    }


@lru_cache(maxsize=256)
def _mix(recipe: str) -> dict[str, float]:
    """The shares of demonstrators of each quality in the embedded world that a recipe's text asks for; empty for real data."""
    import yaml

    data = (yaml.safe_load(recipe) or {}).get("data", {})
    mix = data.get("world", {}).get("mix", {}) if data.get("source") == "world" else {}
    return {quality: share / sum(mix.values()) for quality, share in mix.items()}


def block(run: Run) -> dict[str, Any]:
    """One stage's costs: tokens trained on, written and scored, seconds, weights, operations, bits, and who wrote its text."""
    trained, sampled, scored = reads(run)
    n, models = weights(run), TRAINED.get(run.manifest["stage"], 1)
    n = n if n is not None else next((w for r in runs.lineage(run) if (w := weights(r)) is not None), None)
    return {
        "tokens": round(trained),
        "sampled": round(sampled),
        "scored": round(scored),
        "seconds": run.manifest["seconds"],
        "weights": n,
        "flops": None if n is None else round(flops(n, trained=models * trained, read=sampled + scored)),
        "bits": round(bits(run.manifest)),
        "text_by": text_by(run),
    }


def blocks(found: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """The costs of every run that cost something, by name: what only compares is left out."""
    return {name: block(run) for name, run in found.items() if run.manifest.get("cost")}
