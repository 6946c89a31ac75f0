"""What there is to judge: answers to one prompt, from a preferences run, from a file, or to a prompt that a person typed.

An item's id is made of what is judged, so that it is the same item after a restart. Which answers of a prompt are taken is
decided by the seed and the prompt alone: neither the limit nor the other prompts change it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.records import Answer, Prompt, digest
from labkit.runs import Run

MODES = ("pair", "ranking", "thumb")
MOST = 9  # answers that one ranking holds: a digit each


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something to be judged: two answers, K answers or a single one. `run` is the run whose training its votes are for."""

    id: str
    prompt: Prompt
    answers: tuple[str, ...]
    run: str = ""

    @classmethod
    def of(cls, prompt: Prompt, answers: Iterable[str], run: str = "") -> Item:
        """The item of these answers in this order; its id comes from both."""
        answers = tuple(answers)
        return cls(id=item_id(prompt.id, answers), prompt=prompt, answers=answers, run=run)


def item_id(prompt_id: str, answers: Sequence[str]) -> str:
    """The id of the item that asks about these answers to this prompt."""
    return digest([prompt_id, list(answers)], 12)


def shaped(prompt: Prompt, texts: Iterable[str], mode: str, *, run: str = "", seed: int = 0) -> Item | None:
    """The item that `mode` makes of a prompt's answers: two drawn at random, all of them (nine at most), or one.

    Drawing at random keeps the pairs what the model really writes; picking those that differ most would show people a model
    that does not exist. Answers that are the same but for blanks stand once; None when too few are left.
    """
    if mode not in MODES:
        raise LabError(f"There is no way of judging called {mode!r}: choose one of {', '.join(MODES)}.")
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(" ".join(text.split()), text)
    distinct, wanted = list(found.values()), {"pair": 2, "ranking": MOST, "thumb": 1}[mode]
    if len(distinct) < (1 if mode == "thumb" else 2):
        return None
    rng = random.Random(f"{seed}/{mode}/{prompt.id}")
    drawn = sorted(rng.sample(range(len(distinct)), min(wanted, len(distinct))))
    return Item.of(prompt, (distinct[i] for i in drawn), run)


def items_from_run(run: Run, split: str = "train", mode: str = "pair", limit: int = 0, seed: int = 0) -> list[Item]:
    """One item for each prompt of a finished preferences run, in an order of the seed's own; `limit` 0 takes all.

    The train split by default: only votes on it train anything. Raises LabError where the run has nothing to judge there.
    """
    prompts: dict[str, Prompt] = {}
    texts: dict[str, list[str]] = {}
    for vote in run.votes():
        if vote.prompt.split == split:
            prompts[vote.prompt.id] = vote.prompt
            texts.setdefault(vote.prompt.id, []).extend(vote.answers)
    order = sorted(prompts, key=lambda p: digest([seed, p], 12))
    made = (shaped(prompts[p], texts[p], mode, run=run.id, seed=seed) for p in order)
    items = [item for item in made if item]
    if not items:
        raise LabError(f"{run.id} has no {split} answers to judge: choose another split, or run page 04_preferences.")
    return items[: limit or None]


def item_from_answers(
    text: str, answers: Sequence[str | Answer], mode: str = "pair", *, run: str = "", seed: int = 0
) -> Item:
    """The item of a prompt that a person typed and what a model said to it.

    Where the answers are records, their prompt is taken, so that a typed prompt that is held out here stays held out.
    Raises LabError when the answers are too much alike to be compared.
    """
    records = [a for a in answers if isinstance(a, Answer)]
    prompt = records[0].prompt if records else Prompt.of(text.strip(), kind="typed")
    said = [a.text if isinstance(a, Answer) else a for a in answers]
    item = shaped(prompt, said, mode, run=run, seed=seed)
    if not item:
        raise LabError("The model gave the same answer every time: ask again, or something that leaves more to say.")
    return item


def items_from_file(
    path: str | Path, mode: str = "pair", *, run: str = "", limit: int = 0, seed: int = 0
) -> tuple[list[Item], str]:
    """Items from JSON lines, in the order of the file, and a sentence on the damaged rows that were left out ("" for none).

    A row has a `prompt` (text or messages) with a list of `answers`, or with TRL's `chosen` and `rejected`; which of those
    was chosen is told to nobody. Votes on them train something only if `run` says so. Raises LabError when nothing is left.
    """
    items: dict[str, Item] = {}
    bad: list[str] = []
    rows = 0
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise LabError(f"{path} cannot be read ({said}): check the path.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        rows += 1
        try:
            prompt, answers = _row(json.loads(line))
            item = shaped(prompt, answers, mode, run=run, seed=seed)
            if not item:
                raise ValueError("no two different answers")
            items.setdefault(item.id, item)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            bad.append(f"line {number} ({_why(error)})")
    if not items:
        first = f": {bad[0]}" if bad else ", it is empty"
        raise LabError(f"{path} holds nothing to judge{first}. A row needs prompt and answers, or chosen and rejected.")
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    left_out = f"{len(bad)} of {rows} rows are damaged and left out: {', '.join(bad[:5])}{more}." if bad else ""
    return list(items.values())[: limit or None], left_out


def _row(row: Any) -> tuple[Prompt, list[str]]:
    """Prompt and answers of one row; raises ValueError or its kin where it holds none."""
    from labkit import formats

    if not isinstance(row, dict):
        raise ValueError(f"{type(row).__name__}, not an object with named columns")
    if "answers" in row:
        answers = row["answers"]
        if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
            raise ValueError("answers must be a list of texts")
        messages = formats.conversation(row["prompt"])
    else:
        example = (formats.prompt_preference if "prompt" in row else formats.implicit_preference)(row)
        messages = example.messages
        answers = sorted(t for t in (example.chosen, example.rejected) if t)  # sorted: the order would tell the better
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the prompt does not end with a user's turn")
    return Prompt(id=digest(messages, 10), messages=messages, kind="file"), answers


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no column {error}"
    return "not JSON" if isinstance(error, json.JSONDecodeError) else str(error)
