"""The one graph of the lab, as a literal: what each run is made from, and on which page it is made.

A stage is a module of this package with `VERSION`, `Settings` and `run(job)`. A control is a stage with one thing changed.
Adding a stage: its module, its page, one line here, and a recipe where its numbers must differ.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from labkit.recipe import Settings


@dataclass(frozen=True)
class Node:
    """One run of the ladder: the stage that makes it, its parents, the page it is made on, what a control changes."""

    parents: tuple[str, ...]
    page: str
    stage: str
    about: str
    change: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False  # parents that are not finished are left out (only `compare`)


# fmt: off
# Made when a person asks for it (labkit/retrain.py) and never by a command: their parents and votes are that person's affair.
ON_REQUEST: dict[str, Node] = {
    "reward_yours": Node((), "04_preferences", "reward", "a model of your own rankings"),
    "sft_yours":    Node((), "04_preferences", "sft",    "imitating the answers that you wrote yourself"),
    "dpo_yours":    Node((), "04_preferences", "dpo",    "your preferences, directly"),
    "kto_yours":    Node((), "04_preferences", "kto",    "your verdicts, one answer at a time"),
}


class Graph(dict[str, Node]):
    """The nodes by name. A run on request is found under its name as well, but it is listed nowhere."""

    def __missing__(self, name: str) -> Node:
        return ON_REQUEST[name]


GRAPH: dict[str, Node] = Graph({
    "pretrain":     Node((),                         "01_pretrain",    "pretrain",    "next-token prediction from random weights"),
    "sft":          Node(("pretrain",),              "02_sft",         "sft",         "supervised fine-tuning on demonstrations"),
    "preferences":  Node(("sft",),                   "04_preferences", "preferences", "several answers a prompt, ranked"),
    "reward":       Node(("sft", "preferences"),     "05_reward",      "reward",      "a model of the rankings"),
    "ppo":          Node(("sft", "reward"),          "06_ppo",         "ppo",         "RL against the reward model, with a KL penalty"),
    "dpo":          Node(("sft", "preferences"),     "07_dpo",         "dpo",         "the preferences directly, without a reward model"),
    "sft_twice":    Node(("sft",),                   "06_ppo",         "sft",         "control: SFT for as many steps again"),
    "dpo_shuffled": Node(("sft", "preferences"),     "07_dpo",         "dpo",         "control: DPO on shuffled labels", {"shuffle_labels": True}),
    "kto":          Node(("sft", "preferences"),     "08_kto",         "kto",         "good and bad answers, without pairs"),
    "best_of_n":    Node(("sft", "reward"),          "09_best_of_n",   "best_of_n",   "SFT answers often, the reward model chooses"),
    "feedme":       Node(("sft", "preferences"),     "09_best_of_n",   "feedme",      "imitating the answers that were ranked first"),
    "feedme_random": Node(("sft", "preferences"),    "09_best_of_n",   "feedme",      "control: imitating any of the ranked answers", {"pick": "random"}),
    "expert":       Node(("sft", "reward"),          "09_best_of_n",   "feedme",      "expert iteration: imitating what the reward model liked best", {"by": "reward"}),
    "expert_random": Node(("sft", "reward"),         "09_best_of_n",   "feedme",      "control: imitating any of its own answers", {"by": "reward", "pick": "random"}),
    "spin":         Node(("sft",),                   "11_self_play",   "spin",        "telling people's answers from its own"),
    "critic":       Node(("sft",),                   "10_rlaif",       "critic",      "a model that judges by a constitution"),
    "sl_cai":       Node(("sft", "critic"),          "10_rlaif",       "constitutional", "imitating its own answers as the critic revised them"),
    "sl_cai_lessons": Node(("sft", "critic"),        "10_rlaif",       "constitutional", "control: imitating the critic's lessons themselves", {"imitate": "lessons"}),
    "ai_preferences": Node(("sft", "critic", "preferences"), "10_rlaif", "ai_preferences", "the critic's preferences for the answers that people ranked"),
    "rlaif":        Node(("sft", "ai_preferences"),  "10_rlaif",       "dpo",         "DPO on a model's preferences instead of people's"),
    "prompt_search": Node(("pretrain",),             "03_prompting",   "prompt_search", "the base model behind the words that suit it best"),
    "soft_prompt":  Node(("pretrain",),              "03_prompting",   "soft_prompt", "the base model behind a few learned vectors"),
    "prefix":       Node(("pretrain",),              "03_prompting",   "soft_prompt", "the base model behind learned keys and values", {"method": "prefix"}),
    "rloo":         Node(("sft", "reward"),          "15_rloo_grpo",   "rloo",        "RL without a value network: next to the others' mean"),
    "grpo":         Node(("sft", "reward"),          "15_rloo_grpo",   "rloo",        "RL without a value network: in the group's own unit", {"method": "grpo"}),
    "dialogue":     Node(("sft",),                   "16_dialogue",    "dialogue",    "conversations of two and three turns"),
    "dialogue_blind": Node(("sft", "dialogue"),      "16_dialogue",    "dialogue",    "control: the same, hearing only the last turn", {"blind": True}),
    "sft_mixed":    Node(("pretrain",),              "14_instruction_tuning", "instruct", "instruction tuning on a weighted mixture of tasks"),
    "sft_closed":   Node(("pretrain",),              "14_instruction_tuning", "instruct", "control: closed, short-answer tasks alone", {"tasks": "closed"}),
    "sft_task":     Node(("pretrain",),              "14_instruction_tuning", "instruct", "control: one task alone, for as many steps", {"tasks": "one"}),
    "sft_held_out": Node(("pretrain",),              "14_instruction_tuning", "instruct", "control: some tasks never shown", {"tasks": "seen"}),
    "sft_definitions": Node(("pretrain",),           "14_instruction_tuning", "instruct", "control: the same, with a definition before each question", {"tasks": "seen", "definitions": True}),
    "sft_lora":     Node(("pretrain",),              "14_instruction_tuning", "instruct", "control: low-rank adapters in place of all weights", {"lora": True}),
    "self_instruct": Node(("pretrain",),             "12_self_instruct", "self_instruct", "tuned on instructions and answers that the base wrote itself"),
    "self_instruct_seeds": Node(("pretrain",),       "12_self_instruct", "self_instruct", "control: the seeds alone, over and over", {"method": "seeds"}),
    "unnatural":    Node(("pretrain", "self_instruct"), "12_self_instruct", "self_instruct", "each of those instructions in other words as well", {"method": "unnatural"}),
    "textbook":     Node(("pretrain", "sft"),        "12_self_instruct", "textbook",    "the base reads on: half web, half model-written exercises"),
    "textbook_web": Node(("pretrain",),              "12_self_instruct", "textbook",    "control: as many tokens of plain web", {"share": 0.0}),
    "judge":        Node(("sft", "preferences"),     "13_compare",     "reward",      "a reward model on the other half of the pairs", {"half": "second"}),
    "compare":      Node((
        "pretrain",
        "sft",
        "sft_twice",
        "preferences",
        "reward",
        "ppo",
        "dpo",
        "dpo_shuffled",
        "kto",
        "best_of_n",
        "feedme",
        "feedme_random",
        "expert",
        "expert_random",
        "spin",
        "sl_cai",
        "sl_cai_lessons",
        "rlaif",
        "prompt_search",
        "soft_prompt",
        "prefix",
        "rloo",
        "grpo",
        "dialogue",
        "dialogue_blind",
        "sft_mixed",
        "sft_closed",
        "sft_task",
        "sft_held_out",
        "sft_definitions",
        "sft_lora",
        "self_instruct",
        "self_instruct_seeds",
        "unnatural",
        "textbook",
        "textbook_web",
        "judge",
    ), "13_compare", "compare", "every model on the same prompts", {}, True),
    "cake":         Node(("compare",),               "17_cake",        "cake",        "what every stage cost, and who wrote its text"),
})
# fmt: on

STAGES = (
    "pretrain",
    "sft",
    "preferences",
    "reward",
    "ppo",
    "dpo",
    "kto",
    "best_of_n",
    "feedme",
    "spin",
    "critic",
    "constitutional",
    "ai_preferences",
    "prompt_search",
    "soft_prompt",
    "rloo",
    "dialogue",
    "instruct",
    "self_instruct",
    "textbook",
    "compare",
    "cake",
)
VOTE_MAKERS = ("preferences", "ai_preferences")  # a stage that reads votes reads those of its parent among these


def asked_for(name: str, recipe: Any) -> bool:
    """Whether this recipe wants the run at all: a second reward model is trained only where it is the judge."""
    return name != "judge" or recipe["compare"].judge == "reward_model"


def module(stage: str) -> ModuleType:
    """The stage's file."""
    return importlib.import_module(f"labkit.stages.{stage}")


def sections() -> dict[str, type[Settings]]:
    """Every section of a recipe with its type: what all stages share, then each stage's own."""
    from labkit.lab import Answering, Model, Votes
    from labkit.sources import Data

    shared: dict[str, type[Settings]] = {"model": Model, "data": Data, "votes": Votes, "answers": Answering}
    return {**shared, **{stage: module(stage).Settings for stage in STAGES}}


def settings(node: Node, own: Settings) -> Settings:
    """The stage's settings for this node: as the recipe has them, with the control's change."""
    return own.model_copy(update=dict(node.change))
