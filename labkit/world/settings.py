"""The choices of the embedded world."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from labkit.world.answers import QUALITIES

# Kept from a first sketch: with excellent demonstrations alone SFT leaves nothing for preferences to teach.
MIX = {"excellent": 0.25, "fine": 0.29, "terse": 0.16, "wrong": 0.11, "rude": 0.09, "rambling": 0.10}


class Settings(BaseModel):
    """How much text the world writes, and how good its demonstrations are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: int = Field(default=24_000, ge=10, description="pages of the training web; about 60 tokens each")
    demonstrations: int = Field(default=9_000, ge=1, description="answers by people of mixed skill, for SFT")
    mix: dict[str, float] = Field(
        default_factory=lambda: dict(MIX), description="share of each quality of demonstration; shares are normalised"
    )
    train_prompts: int = Field(
        default=4_000, ge=1, description="distinct prompts for demonstrations, preferences and PPO"
    )
    test_prompts: int = Field(default=400, ge=1, description="prompts that only the report reads")
    validation_prompts: int = Field(default=300, ge=1, description="prompts for choosing settings; pages show these")

    @field_validator("mix")
    @classmethod
    def _known_qualities(cls, mix: dict[str, float]) -> dict[str, float]:
        unknown = [q for q in mix if q not in QUALITIES]
        if unknown or sum(mix.values()) <= 0 or min(mix.values()) < 0:
            raise ValueError(f"mix takes shares of {', '.join(QUALITIES)}, none negative, not all zero; got {mix}")
        return mix
