"""Talking with finished models over several turns: each hears its own earlier answers, as in any chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.markup import Html
from labkit.records import Answer, Prompt

if TYPE_CHECKING:
    from labkit.lab import Lab


def play(lab: Lab, said: Sequence[str], *names: str, seed: int = 0) -> Html:
    """Everybody's side of a conversation in which a person says these things in turn, one talk below the other.

    Raises LabError where nothing is said, or where the talk grows longer than the model's context.
    """
    from labkit import show

    if not said or not all(text.strip() for text in said):
        raise LabError("There is nothing to answer yet: put a question into the conversation first.")
    return show.together([show.record(talk) for name in names if (talk := _talk(lab, name, said, seed))])


def _talk(lab: Lab, name: str, said: Sequence[str], seed: int) -> Answer | None:
    from labkit import ask, chat, sampling

    run = lab.find(name)
    if run is None:
        return None
    how, settings = lab.recipe["answers"], lab.recipe["model"]
    mine = ask.load(run)
    model, tokenizer = mine.model, mine.tokenizer
    turns: list[dict[str, str]] = []
    for number, text in enumerate(said):
        turns.append({"role": "user", "content": text.strip()})
        prompt = Prompt(id=f"typed-{number}", messages=tuple(turns), kind="typed")
        query = chat.prompt_ids(tokenizer, prompt, room=how.max_tokens, context=settings.context)
        [[sample]] = sampling.sample(
            model, [query], n=1, end=tokenizer.eos_token_id, pad_id=tokenizer.pad_token_id, max_tokens=how.max_tokens,
            temperature=how.temperature, seed=seed + number, batch=1,
        )  # fmt: skip
        answer = chat.decode(tokenizer, sample.ids)
        turns.append({"role": "assistant", "content": answer})
    return Answer(prompt=prompt, text=answer, author=name, ended=sample.ended, tokens=len(sample.ids))
