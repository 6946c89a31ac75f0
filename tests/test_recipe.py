"""A recipe is strict: an unknown name is answered by its nearest, a wrong value by what it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from labkit import recipe, stages
from labkit.errors import LabError
from labkit.recipe import Recipe, Settings

SECTIONS = stages.sections()


def load(name: str = "smoke", **overrides: Any) -> Recipe:
    """Overrides with `__` for the dots."""
    return recipe.load(name, {k.replace("__", "."): v for k, v in overrides.items()}, sections=SECTIONS)


def written(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_every_shipped_recipe_loads_and_says_what_it_is_about() -> None:
    found = [load(name) for name in recipe.names()]
    assert {"smoke", "tiny"} <= {r.name for r in found} and len(found) == len(list(recipe.FOLDER.glob("*.yaml"))) >= 2
    for r in found:
        assert len(r.about) > 20 and not r.variant
        assert set(r.sections) == set(SECTIONS)


def test_every_setting_explains_itself_and_knows_where_its_value_came_from() -> None:
    r = load(dpo__beta=0.2)
    rows = {row["key"]: row for section in SECTIONS for row in r.rows(section)}
    assert len(rows) > 60
    silent = [key for key, row in rows.items() if len(row["meaning"]) < 10]
    assert not silent, f"{silent} need a description"
    assert [rows[k]["origin"] for k in ("dpo.beta", "dpo.epochs", "dpo.batch")] == ["override", "smoke", "default"]
    assert rows["dpo.beta"]["value"] == 0.2


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("smok", {}, "no recipe called 'smok': did you mean 'smoke'"),
        ("smoke", {"dpo.bta": 1}, "no setting called 'dpo.bta': did you mean 'dpo.beta'"),
        ("smoke", {"dop.beta": 1}, "did you mean 'dpo.beta'"),
        ("smoke", {"sed": 1}, "did you mean 'seed'"),
        ("smoke", {"data.world.documnets": 20}, "did you mean 'data.world.documents'"),
        ("smoke", {"dpo.beta": -1}, r"dpo.beta: must be greater than 0 \(it is -1\)"),
        ("smoke", {"dpo.beta": "much"}, r"dpo.beta: must be a valid number.*\(it is 'much'\)"),
        ("smoke", {"dpo.epochs": 1.5}, r"dpo.epochs: must be a valid integer.*1.5"),
        ("smoke", {"reward.half": "third"}, "reward.half: must be 'all', 'first' or 'second'"),
        ("smoke", {"ppo.lam": 1.2}, "ppo.lam: must be less than or equal to 1"),
        ("smoke", {"data.world.documents": 0}, "data.world.documents: must be greater than or equal to 10"),
        ("smoke", {"data.world": 3}, "data.world: "),
        ("smoke", {"seed": -1}, "seed must be a whole number from 0 up, not -1"),
        ("smoke", {"seed": True}, "seed must be a whole number"),
        ("nowhere.yaml", {}, "no recipe file nowhere.yaml"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_a_sentence(name: str, overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(LabError, match=said):
        recipe.load(name, overrides, sections=SECTIONS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dpo: {beta: 1", "mine.yaml is not YAML that can be read"),
        ("- dpo\n- sft", "must hold sections such as 'dpo:'"),
        ("dpo: 3", "the section 'dpo' must hold 'key: value' lines, not 3"),
        ("dop: {beta: 1}", "no section of mine.yaml called 'dop': did you mean 'dpo'"),
        ("dpo: {bta: 1}", "no setting called 'dpo.bta': did you mean 'dpo.beta'"),
        ("data: {world: {documnets: 20}}", "did you mean 'data.world.documents'"),
        ("seed: one", "seed must be a whole number"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_said_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LabError, match=said):
        load(written(tmp_path, text))


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    r = load(written(tmp_path, ""))
    assert r.name == "mine" and all(r[s] == model() for s, model in SECTIONS.items())


def test_overrides_go_on_top_of_the_file_also_inside_a_section() -> None:
    """One key of `data.world` is replaced; its neighbours keep what the recipe says."""
    plain, changed = load(), load(data__world__documents=77, answers__n=5)
    assert changed["data"].world.documents == 77 and changed["answers"].n == 5
    assert changed["data"].world.model_copy(update={"documents": 600}) == plain["data"].world
    assert changed.origins["data.world"] == "override"
    assert plain["data"].world.documents == 600, "loading twice shares nothing"


def test_command_line_values_are_read_as_yaml_once() -> None:
    """`'"7"'` is the text 7 and stays text; 1e-3, which YAML takes for text, is still a number where one is asked
    for.
    """
    parsed = recipe.parse_overrides(
        ["dpo.beta=0.5", "reward.half=first", 'model.path="7"', "dpo.learning_rate=1e-3", "data.web=[a.txt, b=c.txt]"]
    )
    assert parsed == {
        "dpo.beta": 0.5, "reward.half": "first", "model.path": "7", "dpo.learning_rate": "1e-3", "data.web": ["a.txt", "b=c.txt"],
    }  # fmt: skip
    r = recipe.load("smoke", parsed, sections=SECTIONS)
    assert r["model"].path == "7" and r["dpo"].learning_rate == 1e-3
    for bad, said in (
        ("dpo.beta", "is not stage.key=value"),
        ("=3", "is not stage.key=value"),
        ("a.b=[1", "cannot be read as YAML"),
    ):
        with pytest.raises(LabError, match=said):
            recipe.parse_overrides([bad])


def test_the_digest_changes_with_any_value() -> None:
    """Every field of a section of our own is changed in turn, and the seed: all digests differ, and the same is the
    same.
    """

    class Inner(Settings):
        depth: int = Field(1, description="")

    class Section(Settings):
        number: int = Field(1, description="")
        rate: float = Field(0.1, description="")
        name: str = Field("a", description="")
        inner: Inner = Field(default_factory=Inner, description="")

    changes: list[dict[str, Any]] = [
        {}, {"own.number": 2}, {"own.rate": 0.2}, {"own.name": "b"}, {"own.inner.depth": 2}, {"seed": 1}
    ]  # fmt: skip
    file = recipe.FOLDER / "tiny.yaml"
    about = {k: v for k, v in yaml.safe_load(file.read_text(encoding="utf-8")).items() if k in SECTIONS}
    sections = {**SECTIONS, "own": Section} if about else {"own": Section}
    digests = [recipe.load("tiny", c, sections=sections).digest for c in changes]
    assert len(set(digests)) == len(changes) == 6
    assert digests[0] == recipe.load("tiny", {}, sections=sections).digest
    assert load().digest != load(compare__threads=2).digest


def test_a_variants_folder_is_named_after_its_overrides() -> None:
    assert load().variant == ""
    assert load(seed=2, dpo__beta=1).variant == "dpo.beta=1,seed=2"
    one, two = load(model__path="a/b").variant, load(model__path="a_b").variant
    assert one != two and "/" not in one, "two different overrides never share a folder"
    assert len(load(model__path="x" * 300).variant) <= 80


def test_a_dumped_recipe_loads_as_the_same(tmp_path: Path) -> None:
    for name in recipe.names():
        first = load(name, dpo__beta=0.7, seed=5)
        again = load(written(tmp_path, first.dump()))
        assert again.sections == first.sections and again.digest == first.digest and again.about == first.about


def test_a_recipe_is_frozen() -> None:
    r = load()
    with pytest.raises(Exception, match="frozen"):
        r["dpo"].beta = 3.0
    with pytest.raises(AttributeError):
        r.seed = 4  # type: ignore[misc]
