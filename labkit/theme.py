"""The look of everything that is drawn: a name and a colour for each row of the ladder, greys that read on white and black.

Colours are close to Okabe and Ito's, which people with any colour vision tell apart; each has a contrast of about 3:1 or
more on white and on near-black, so one picture serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

INK = "#7d7d7d"  # text: contrast about 4.2:1 on white and on #181818
FAINT = "rgba(128,128,128,0.22)"  # grid lines, borders
WASH = "rgba(128,128,128,0.09)"  # the ground of chips and headings
GOOD, BAD, WARN = "#1b9e77", "#d9603b", "#b58900"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# fmt: off
STAGES: dict[str, tuple[str, str]] = {  # name: (label, colour)
    "pretrain":     ("base",              "#858d98"),
    "prompted":     ("prompted base",     "#a8841a"),
    "sft":          ("SFT",               "#3b8fd4"),
    "preferences":  ("preferences",       "#9a7bd0"),
    "reward":       ("reward model",      "#c0679f"),
    "judge":        ("judge",             "#d085b0"),
    "ppo":          ("PPO",               "#e0632d"),
    "dpo":          ("DPO",               "#1b9e77"),
    "sft_twice":    ("SFT ×2",            "#7fa8cc"),
    "dpo_shuffled": ("DPO shuffled",      "#7ab5a0"),
    "kto":          ("KTO",               "#6f9c3d"),
    "best_of_n":    ("best of n",         "#b07a4a"),
    "feedme":       ("FeedME",            "#5aa9c9"),
    "expert":       ("expert iteration",  "#9a7bd0"),
    "spin":         ("SPIN",              "#c58a1c"),
    "feedme_random": ("FeedME, any",      "#79aabd"),
    "expert_random": ("expert, any",      "#a592cf"),
    "critic":       ("critic",            "#8c6bb1"),
    "sl_cai":       ("SL-CAI",            "#4f9d8e"),
    "sl_cai_lessons": ("SL-CAI, lessons", "#6fa69c"),
    "ai_preferences": ("AI preferences",  "#b08bc9"),
    "rlaif":        ("RLAIF",             "#2f7fa8"),
    "prompt_search": ("searched prompt",  "#b5793a"),
    "soft_prompt":  ("soft prompt",       "#4c8fb0"),
    "prefix":       ("prefix",            "#6a86c9"),
    "rloo":         ("RLOO",              "#d2556b"),
    "grpo":         ("GRPO",              "#c2789a"),
    "dialogue":     ("dialogue",          "#3f9a4f"),
    "dialogue_blind": ("dialogue, blind", "#7f9c5f"),
    "cake":         ("the cake",          "#858d98"),
    "sft_mixed":    ("all tasks",         "#5b8bb5"),
    "sft_closed":   ("closed tasks",      "#b0766a"),
    "sft_task":     ("one task",          "#8f8440"),
    "sft_held_out": ("unseen tasks",      "#7d83a8"),
    "sft_definitions": ("with definitions", "#3f9188"),
    "sft_lora":     ("LoRA",              "#a877b8"),
    "self_instruct": ("Self-Instruct",    "#a8703c"),
    "self_instruct_seeds": ("seeds alone", "#b58a66"),
    "unnatural":    ("Unnatural",         "#8f7a2e"),
    "textbook":     ("textbook base",     "#6c7fc0"),
    "textbook_web": ("more web",          "#8b93b8"),
    "compare":      ("compare",           "#858d98"),
}
# fmt: on
SPARE = ("#9a7bd0", "#c0679f", "#5aa9c9", "#b07a4a", "#6f9c3d", "#858d98")


def _stage(name: str) -> str:
    """The stage that a row belongs to: itself, or what stands before a run's digest (`dpo-3fa9c1` is a `dpo`)."""
    return name if name in STAGES else name.partition("-")[0]


def label(name: str) -> str:
    """How a row of the ladder is called in pictures and tables; an unknown one by its own name."""
    return STAGES[name][0] if name in STAGES else name


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def step(name: str) -> str:
    """How the run itself is called, where it is not its model that is meant: base is what pretraining makes."""
    return "pretraining" if name == "pretrain" else label(name)


def model(name: str, *, start: bool = False) -> str:
    """How a model is called in a sentence: `the base`, `SFT`; with a capital at its start."""
    text = f"the {label(name)}" if name in ("pretrain", "prompted") else label(name)
    return text[0].upper() + text[1:] if start else text


def leaders(names: Sequence[str], values: Sequence[float]) -> tuple[str, str]:
    """Who stands highest, and at what: `PPO and DPO stand highest`, `1.62 and 1.60`; of more than three only the first two by name."""
    said = [model(n, start=i == 0) for i, n in enumerate(names)]
    figures = [number(v, ".2f") for v in values]
    if len(said) > 3:
        said, figures = [*said[:2], f"{len(said) - 2} others"], [f"up to {figures[0]}"]
    return f"{listed(said)} {'stands' if len(said) == 1 else 'stand'} highest", listed(figures)


def colour(name: str) -> str:
    """The fixed colour of a row of the ladder; an unknown one gets the same spare colour each time."""
    stage = _stage(name)
    return STAGES[stage][1] if stage in STAGES else SPARE[sum(stage.encode()) % len(SPARE)]


def number(value: Any, spec: str = "") -> str:
    """A figure as people read it: `1,234`, `1.62`, `−0.30`, `76 %`; a dash for None.

    `spec` is a format such as `.2f` or `.0%`; without one, whole numbers get thousands separators and others three digits.
    """
    if value is None:
        return "–"
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if not spec:
        spec = "," if isinstance(value, int) or float(value).is_integer() else ".3g"
    text = f"{value:{spec}}".replace("%", " %").replace("-", "−")
    return text.removeprefix("−") if text.strip("−0.% ") == "" else text


def interval(value: Any, ci: Any, spec: str = ".2f") -> str:
    """A figure with its interval: `1.62 [1.49, 1.75]`, `76 % [71, 80]`."""
    if value is None or ci is None:
        return number(value, spec)
    low, high = (number(c, spec).replace(" %", "") for c in ci)
    return f"{number(value, spec)} [{low}, {high}]"


def short(value: float) -> str:
    """A large figure in few letters: `2.6 M`, `310 k`, `42`."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {letter}".replace("-", "−")
    return number(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8 s`, `1 min 40 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 9.95 and seconds != whole else f"{whole} s"
    minutes = f"{whole // 60} min {whole % 60:02} s" if whole % 60 else f"{whole // 60} min"
    return minutes if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02} min"
