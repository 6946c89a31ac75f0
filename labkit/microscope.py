"""The microscope: one answer token by token, and what a stage changed at each of them, as plain JSON.

Two runs A and B read the same tokens: the prompt and the answer in the chat's format (a base model, too, though it never
saw the format's marks: learning them is a part of what SFT changed). At each token of the answer

    change      log π_B − log π_A of the token itself, in nats
    kl          Σ_v π_B(v) log π_B(v)/π_A(v) over the whole vocabulary: exact, never negative
    reward      r_φ of the answer as if it ended after this token. The end token is put there, since the reward model was
                trained to read its score at that token and nowhere else
    value       V(s_t) of PPO's value network, read where the token is about to be written
    advantage   GAE by PPO's own numbers, not whitened (that would need a batch)

KL is summed along this one answer. Where B wrote it, the sum is an estimate of KL(π_B‖π_A) for whole answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import ask, theme
from labkit.errors import LabError
from labkit.records import Prompt
from labkit.runs import Run
from labkit.stages import GRAPH

if TYPE_CHECKING:
    from labkit.lab import Lab

DIGITS = 5
VALUE = Path("value", "model")  # where a PPO run keeps its value network, if it does


class Microscope:
    """A lab's models, each loaded when it is first needed, ready to look at answers.

    Runs are named ("sft") or given: a `Run` of any recipe will do, as long as both read text in the same tokens.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._kept: dict[Path, ask.Loaded] = {}

    @property
    def names(self) -> list[str]:
        """The finished runs of the recipe that write answers and still have their weights, in the graph's order."""
        return [name for name, run in self.lab.finished().items() if _writes(run)]

    def look(
        self, prompt: str | Prompt, answer: str, a: str | Run = "sft", b: str | Run = "dpo", *, ended: bool = True
    ) -> dict[str, Any]:
        """One answer under two runs: `prompt`, `answer`, `a`, `b`, `tokens` (a dict each), `totals` and `notes`.

        The text is cut into tokens anew, which may not be how a model wrote it. `ended` False says that it was cut off: it
        gets no end token, and PPO pays for it what it pays for such answers. Raises LabError for an empty prompt or
        answer, one that does not fit the context, a missing run, and two runs that read text in different tokens.
        """
        import torch

        from labkit import chat, tokenwise

        asked, answer = _asked(prompt), answer.strip()
        if not answer:
            raise LabError("There is no answer to look at yet: type one, or let a model write it.")
        before, after = runs = self._run(a), self._run(b)
        first, second = map(self._load, runs)
        tokenizer = first.tokenizer
        if tokenizer.get_vocab() != second.tokenizer.get_vocab():
            raise LabError(
                f"{before.id} and {after.id} read text in different tokens: compare two runs that share a tokenizer."
            )
        query, ids = chat.answer_ids(tokenizer, asked, answer)
        _fits(query, ids, min(run.manifest["model"]["context"] for run in runs))
        ids = ids if ended else ids[:-1]
        with torch.inference_mode():
            seen = [tokenwise.log_probabilities(loaded.model, query, ids) for loaded in (first, second)]
            columns = tokenwise.compared(seen[0], seen[1], ids)
            rewards, no_reward = self._rewarded(runs, query, ids, tokenizer)
            values, no_value = self._valued(runs, query, ids, ended)
        tokens = _written(tokenizer, ids, {**columns, **rewards, **values})
        return {
            "prompt": asked.text, "answer": answer, "a": _named(before), "b": _named(after), "tokens": tokens,
            "totals": totals(tokens), "notes": [note for note in (no_reward, no_value) if note],
        }  # fmt: skip

    def write(self, prompt: str | Prompt, run: str | Run, seed: int = 0) -> str:
        """An answer by one of the runs, at temperature 1; raises LabError as `look` does."""
        found = self._run(run)
        return ask.Answerer(found.name, found, lambda: None, kept=self._kept)(_asked(prompt).text, seed=seed).text

    def _run(self, run: str | Run) -> Run:
        found = run if isinstance(run, Run) else self.lab.find(run)
        if not found:
            raise LabError(f"There is no finished run of {run}: run page {GRAPH[str(run)].page} first.")
        if not _writes(found):
            raise LabError(f"{found.id} has no weights that write answers: choose {theme.listed(self.names)}.")
        return found

    def _load(self, run: Run, *, reward: bool = False) -> ask.Loaded:
        if run.path not in self._kept:
            self._kept[run.path] = ask.load(run, reward=reward)
        return self._kept[run.path]

    def _rewarded(
        self, runs: Sequence[Run], query: list[int], ids: list[int], tokenizer: Any
    ) -> tuple[dict[str, list[float]], str]:
        """The reward by prefix, by the reward model behind the runs or the recipe's; or a note why there is none."""
        from labkit import tokenwise

        judge = ask.proxy(reversed(runs)) or self.lab.find("reward")
        if not (judge and (judge.path / "model").is_dir()):
            return {}, f"There is no reward by prefix: page {GRAPH['reward'].page} trains the reward model."
        loaded = self._load(judge, reward=True)
        if loaded.tokenizer.get_vocab() != tokenizer.get_vocab():
            return {}, f"There is no reward by prefix: {judge.id} reads text in other tokens."
        return {"reward": tokenwise.prefix_rewards(loaded.model, query, ids, tokenizer.eos_token_id)}, ""

    def _valued(
        self, runs: Sequence[Run], query: list[int], ids: list[int], ended: bool
    ) -> tuple[dict[str, list[float]], str]:
        """Value and advantage where one of the runs is PPO's and kept its value network; or a note why there is none."""
        from labkit import tokenwise

        run = next((r for r in reversed(runs) if r.manifest["stage"] == "ppo"), None)
        if not run:
            return {}, ""
        reference, reward = ask.parent(run, "sft"), ask.parent(run, "reward")
        if not (reference and reward and (run.path / VALUE).is_dir()):
            return {}, f"{run.id} did not keep its value network: there is no value and no advantage to show."
        policy, anchor = self._load(run).model, self._load(reference).model
        judge, value_network = self._load(reward, reward=True).model, self._value_network(run)
        settings = {**run.manifest["settings"], "kl": run.summary["beta"]}  # β as it stood at the end
        values, advantages = tokenwise.valued(policy, anchor, judge, value_network, query, ids, settings, ended=ended)
        return {"value": values, "advantage": advantages}, ""

    def _value_network(self, run: Run) -> Any:
        from labkit import models

        folder = run.path / VALUE
        if folder not in self._kept:
            like = self._load(run)
            model = models.load_reward(folder, device=str(like.model.device), dtype=run.manifest["model"]["dtype"])
            self._kept[folder] = ask.Loaded(model, like.tokenizer)
        return self._kept[folder].model


def totals(tokens: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the answer: tokens, nats under A and B, their difference, KL; and the whole answer's reward, if known."""
    sums = {key: round(sum(t[key] for t in tokens), DIGITS) for key in ("logp_a", "logp_b", "change", "kl")}
    return {"tokens": len(tokens), **sums, "reward": tokens[-1].get("reward")}


def _written(tokenizer: Any, ids: list[int], columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns → a dict a token, with its text; alternatives become [text, probability], best first."""
    from labkit import pieces

    said: dict[str, list[Any]] = {
        "text": pieces.texts(tokenizer, ids),
        "whole": pieces.split_characters(tokenizer, ids),
        "mark": pieces.marks(tokenizer, ids),
    }
    for key, column in columns.items():
        if key.startswith("top_"):
            named = [pieces.texts(tokenizer, [i for i, _ in row]) for row in column]
            said[key] = [
                [[text, round(p, DIGITS)] for text, (_, p) in zip(names, row, strict=True)]
                for names, row in zip(named, column, strict=True)
            ]
        else:
            said[key] = [round(value, DIGITS) for value in column]
    return [dict(zip(said, row, strict=True)) for row in zip(*said.values(), strict=True)]


def _asked(prompt: str | Prompt) -> Prompt:
    found = prompt if isinstance(prompt, Prompt) else Prompt.of(prompt.strip(), kind="typed")
    if not found.text.strip():
        raise LabError("There is no prompt yet: type a question first.")
    return found


def _fits(query: list[int], ids: list[int], context: int) -> None:
    if len(query) + len(ids) > context:
        raise LabError(
            f"The prompt ({len(query)} tokens) and the answer ({len(ids)}) are too long for the model's context of "
            f"{context}: shorten one of them."
        )


def _writes(run: Run) -> bool:
    """Whether the run left a model that answers prompts."""
    return (run.path / "model").is_dir() and (run.path / "answers.jsonl").is_file()


def _named(run: Run) -> dict[str, str]:
    return {"name": run.name, "id": run.id, "label": theme.label(run.name)}
