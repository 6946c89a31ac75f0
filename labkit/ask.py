"""Asking models: functions that answer a typed prompt, token by token, each as its stage would render it.

A page hands them to a view; nothing is loaded before the first question, and what two views ask is loaded once. What a
person typed is never graded, unless it is a question that the world itself could ask: then gold is known.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import yaml

from labkit.errors import LabError
from labkit.records import Answer, Prompt
from labkit.runs import MANIFEST, Run

if TYPE_CHECKING:
    from labkit.compare import Comparison
    from labkit.lab import Lab
    from labkit.sources import Source

OWNER = {"prompted": "pretrain"}  # whose weights answer
Heard = Callable[[str], bool | None]  # is told the answer so far; False ends it there


@dataclass(eq=False)
class Loaded:
    """A run's model with its tokenizer, on its device."""

    model: Any
    tokenizer: Any


_LOADED: WeakValueDictionary[tuple[Path, int], Loaded] = WeakValueDictionary()  # as long as an answerer keeps it
_LOADING = threading.RLock()  # transformers does not load in two threads at once


@dataclass(frozen=True, eq=False)
class Answerer:
    """One model, called with a prompt in any thread. `author` is its row in a comparison, `run` whose weights answer.

    With `proxy` each answer carries that reward model's score and, where the run has an SFT parent, KL to it in nats.
    """

    author: str
    run: Run
    source: Callable[[], Source | None]
    proxy: Run | None = None
    kept: dict[Path, Loaded] = field(default_factory=dict, repr=False)
    template: str = ""  # the words that a search chose, with one `{prompt}`

    def __call__(
        self, text: str, *, temperature: float = 1.0, top_p: float = 1.0, max_tokens: int | None = None, seed: int = 0,
        on_token: Heard | None = None,
    ) -> Answer:  # fmt: skip
        """The model's answer; `on_token` hears all of it so far after each token, and may stop it by returning False.

        The same arguments give the same answer: with `top_p` 1 that of `sampling.sample` for this prompt alone. Raises
        LabError for an empty prompt, one that does not fit the context, or weights that were cleaned away.
        """
        from labkit import chat, sampling

        if not text.strip():
            raise LabError("There is nothing to answer yet: type a question first.")
        mine = self._load(self.run)
        prompt = self._prompt(text)
        room = max_tokens or recipe(self.run)["answers"]["max_tokens"]
        query = self._query(mine.tokenizer, prompt, room)
        end, ids, said, ended = mine.tokenizer.eos_token_id, [], "", False
        for token, _ in sampling.stream(
            mine.model, query, end=end, max_tokens=room, temperature=max(temperature, 0.01), top_p=max(top_p, 0.01),
            seed=seed,
        ):  # fmt: skip
            ids.append(token)
            said, ended = chat.decode(mine.tokenizer, ids), token == end
            if self._plain == "prompted" and "\n" in said:
                said, ended = said.partition("\n")[0].strip(), True  # the next line would be the next question
            wanted = on_token(said if ended else said.rstrip("\ufffd")) if on_token else None  # half a letter waits
            if ended or wanted is False:
                break
        answer = Answer(prompt=prompt, text=said, author=self.author, ended=ended, tokens=len(ids))
        return self._measured(self._graded(answer), query, ids)

    @property
    def _plain(self) -> str:
        """`pretrain` or `prompted` for a base model, which is asked in plain text; empty for those that know turns."""
        first, stage = self.author.split(" of ")[0], self.run.manifest["stage"]
        if first == "prompted" or self.template or stage == "textbook":
            return "prompted"
        return "pretrain" if stage == "pretrain" else ""

    def _prompt(self, text: str) -> Prompt:
        recognise = getattr(self.source(), "recognise", None)
        return (recognise(text) if recognise else None) or Prompt.of(text.strip(), kind="typed")

    def _query(self, tokenizer: Any, prompt: Prompt, room: int) -> list[int]:
        from labkit import chat, tasks

        context = recipe(self.run)["model"]["context"]
        if not self._plain:
            return chat.prompt_ids(tokenizer, tasks.put(self.run, prompt), room=room, context=context)
        template = self.template or "{prompt}\n"
        if self._plain == "prompted" and not self.template:
            source = self.source()
            if source is None:
                raise LabError(f"The data of {self.run.id} cannot be read, so it has no examples to be prompted with.")
            template = source.few_shot()
        return chat.text_ids(tokenizer, template.replace("{prompt}", prompt.text), room=room, context=context)

    def _graded(self, answer: Answer) -> Answer:
        source = self.source()
        if source is None or answer.prompt.kind == "typed":
            return answer
        gold, grades = source.grade(answer.prompt, answer.text, ended=answer.ended)
        return replace(answer, scores={} if gold is None else {"gold": gold}, grades=grades)

    def _measured(self, answer: Answer, query: list[int], ids: list[int]) -> Answer:
        """The answer with what the proxies say of it: the reward model's score, log π and KL to the SFT run."""
        if self.proxy is None:
            return answer
        from labkit import sampling

        reference = parent(self.run, "sft")
        if reference and ids and (reference.path / "model").is_dir():
            pair = [self._load(run).model for run in (self.run, reference)]
            mine, theirs = (float(sampling.score_logps(m, [query], [ids])[0].sum()) for m in pair)
            answer = replace(answer, logp=round(mine, 4), kl=round(mine - theirs, 4))
        return _rewarded(self._load(self.proxy, reward=True), [answer])[0]

    def _load(self, run: Run, *, reward: bool = False) -> Loaded:
        if run.path not in self.kept:
            self.kept[run.path] = load(run, reward=reward)
        return self.kept[run.path]


def answerers(lab: Lab, *authors: str, proxy: bool = False) -> dict[str, Answerer]:
    """An answerer for each author whose run is finished under the lab's recipe; "prompted" is the base behind examples."""
    known = lab.finished()
    owners = {author: known.get(OWNER.get(author, author)) for author in authors}
    judge = known.get("reward") if proxy else None
    found = {a: (run, weights(run)) for a, run in owners.items() if run}
    return {
        a: Answerer(a, own, lambda: lab.source, judge, template=words(run))
        for a, (run, own) in found.items()
        if trained(own)
    }


def behind(c: Comparison) -> dict[str, Answerer]:
    """An answerer for each row of a comparison, whatever recipe its run is from, with the proxy's scores if there is one.

    A row whose run trained nothing (best of n) has none.
    """
    judge, found = proxy(c.runs.values()), {a: (run, weights(run)) for a, run in c.runs.items()}
    return {
        a: Answerer(a, own, functools.partial(_source, run), judge, template=words(run))
        for a, (run, own) in found.items()
        if trained(own)
    }


def scored(c: Comparison, answers: Sequence[Answer]) -> list[Answer]:
    """The answers with `scores["reward"]` by the reward model behind a comparison; raises LabError when there is none."""
    judge = proxy(c.runs.values())
    if judge is None:
        raise LabError("No reward model belongs to these runs: compare PPO or DPO after page 05_reward.")
    return _rewarded(load(judge, reward=True), answers)


def rewarded(lab: Lab, answers: Sequence[Answer]) -> list[Answer]:
    """The same answers with `scores["reward"]` by the recipe's reward model; raises LabError when it is not trained."""
    if not (judge := lab.find("reward")):
        raise LabError("There is no finished run of reward: run page 05_reward first.")
    return _rewarded(load(judge, reward=True), answers)


def _rewarded(judge: Loaded, answers: Sequence[Answer]) -> list[Answer]:
    from labkit import chat, sampling

    encoded = [chat.answer_ids(judge.tokenizer, a.prompt, a.text) for a in answers]
    scores = sampling.score_rewards(judge.model, [q for q, _ in encoded], [a for _, a in encoded]).tolist()
    return [replace(a, scores={**a.scores, "reward": round(s, 4)}) for a, s in zip(answers, scores, strict=True)]


def trained(run: Run) -> bool:
    """Whether the run made weights of its own, be they still there or cleaned away."""
    return any(name.startswith("model/") for name in run.manifest["files"])


def words(run: Run) -> str:
    """The template that a search of prompts chose; empty for every other run."""
    return run.summary["template"] if run.manifest["stage"] == "prompt_search" else ""


def weights(run: Run) -> Run:
    """The run whose weights answer: itself, or the base behind the words that a search chose."""
    return (parent(run, "pretrain") or run) if words(run) else run


def proxy(found: Iterable[Run]) -> Run | None:
    """The reward model that one of the runs was trained against, or one that was trained on the same preferences."""
    found = list(found)
    if used := next((r for run in found if (r := parent(run, "reward"))), None):
        return used
    taught = {(run.path.parent, run.manifest["parents"].get("preferences", "")) for run in found}
    for folder, preferences in sorted((f, p) for f, p in taught if p):
        for file in sorted(folder.glob(f"reward-*/{MANIFEST}")):
            if Run(file.parent).manifest["parents"].get("preferences") == preferences:
                return Run(file.parent)
    return None


def parent(run: Run, name: str) -> Run | None:
    """The finished run that `run` was made from under that name, or None."""
    path = run.path.parent / run.manifest["parents"].get(name, "-")
    return Run(path) if (path / MANIFEST).is_file() else None


@functools.lru_cache(maxsize=64)
def recipe(run: Run) -> dict[str, Any]:
    """The recipe that a run was made by, read as it stands: it may come from another version of the lab."""
    return yaml.safe_load((run.path / "recipe.yaml").read_text(encoding="utf-8"))


def load(run: Run, *, reward: bool = False) -> Loaded:
    """A run's model and tokenizer, loaded by one thread at a time and shared as long as somebody keeps them."""
    from labkit import models

    with _LOADING:
        key = (run.path, (run.path / MANIFEST).stat().st_mtime_ns)
        if (held := _LOADED.get(key)) is None:
            from transformers import AutoTokenizer
            from transformers.utils import logging

            logging.disable_progress_bar()  # in a page it would be a widget, over in a blink
            settings = recipe(run)["model"]
            how = {"device": _device(settings["device"]), "dtype": settings["dtype"]}
            if reward:
                judge = models.load_reward(run.model, **how)
                held = Loaded(judge, AutoTokenizer.from_pretrained(run.model, padding_side="left"))
            else:
                held = Loaded(*models.load(run.model, **how))
            _LOADED[key] = held
    return held


def _source(run: Run) -> Source | None:
    return _opened(json.dumps(recipe(run)["data"], sort_keys=True), recipe(run)["seed"])


@functools.lru_cache(maxsize=4)
def _opened(data: str, seed: int) -> Source | None:
    """The source of a recipe's data; None where this version of the lab cannot open it, and then nothing is graded."""
    from labkit import sources

    try:
        return sources.open_source(sources.Data(**json.loads(data)), seed=seed)
    except (LabError, ValueError):
        return None


def _device(wanted: str) -> str:
    import torch

    return wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
