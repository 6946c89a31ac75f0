"""A recipe: every choice of one lab in one place, frozen and strict.

A recipe file states only what differs from the defaults, which stand in the stage files. Overrides (`dpo.beta=0.3`) go on
top. An unknown key names its nearest neighbour; a value of the wrong type or range says what it should be.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from labkit.errors import LabError
from labkit.records import digest

T = TypeVar("T")
FOLDER = Path(__file__).parent / "recipes"


class Settings(BaseModel):
    """A section of a recipe: frozen, with no unknown keys; each field says its unit, usual range and reason."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


@dataclass(frozen=True)
class Recipe:
    """One lab's choices. `sections[stage]` holds that stage's settings; `origins` says where each value came from."""

    name: str
    about: str
    seed: int
    sections: Mapping[str, Settings]
    origins: Mapping[str, str]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, section: str) -> Any:
        return self.sections[section]

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with any value of any section, and with the seed."""
        return digest({"seed": self.seed, **{k: v.model_dump(mode="json") for k, v in self.sections.items()}}, 12)

    @property
    def variant(self) -> str:
        """Empty for the recipe as its file states it, else a folder name made of the overrides: `dpo.beta=1,seed=2`."""
        slug = ",".join(f"{k}={v}" for k, v in sorted(self.overrides.items()))
        safe = "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in slug)
        return safe if safe == slug and len(safe) <= 80 else f"{safe[:70]}-{digest(slug)}"

    def rows(self, section: str) -> list[dict[str, Any]]:
        """One section as a table: key, value, origin (default, recipe or override) and what the key means."""
        model = self.sections[section]
        return [
            {
                "key": f"{section}.{name}",
                "value": getattr(model, name),
                "origin": self.origins.get(f"{section}.{name}", "default"),
                "meaning": info.description or "",
            }
            for name, info in type(model).model_fields.items()
        ]

    def dump(self) -> str:
        """The whole recipe, every value stated, as YAML."""
        body = {k: v.model_dump(mode="json") for k, v in self.sections.items()}
        return yaml.safe_dump({"about": self.about, "seed": self.seed, **body}, sort_keys=False, allow_unicode=True)


def names() -> list[str]:
    """The recipes that ship with the lab."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load(name: str, overrides: Mapping[str, Any] | None = None, *, sections: Mapping[str, type[Settings]]) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path, and put `overrides` on top.

    Raises LabError for an unknown recipe, section or key (with the nearest one), or a value that does not fit.
    """
    file = _find(name)
    body = _read(file)
    about, seed = str(body.pop("about", "")), body.pop("seed", 0)
    given: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for section, values in body.items():
        _known(section, sections, f"section of {file.name}")
        if not isinstance(values, dict):
            raise LabError(f"{file.name}: the section '{section}' must hold 'key: value' lines, not {values!r}.")
        for key, value in values.items():
            given.setdefault(section, {})[key] = value
            origins[f"{section}.{key}"] = file.stem
    clean: dict[str, Any] = {}
    for key, value in (overrides or {}).items():
        clean[key] = value
        if key == "seed":
            seed = value
            continue
        _known(key, [*(f"{s}.{f}" for s, m in sections.items() for f in _keys(m)), "seed"], "setting")
        section, *path = key.split(".")
        inner = given.setdefault(section, {})
        for part in path[:-1]:
            held = inner.get(part) or {}
            inner[part] = inner = dict(held) if isinstance(held, dict) else {}
        inner[path[-1]] = value
        origins[f"{section}.{path[0]}"] = "override"
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise LabError(f"seed must be a whole number from 0 up, not {seed!r}.")
    built = {s: _build(s, model, given.get(s, {})) for s, model in sections.items()}
    return Recipe(name=file.stem, about=about, seed=seed, sections=built, origins=origins, overrides=clean)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """`["dpo.beta=0.3"]` → `{"dpo.beta": 0.3}`; values are read as YAML."""
    out: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise LabError(f"'{pair}' is not stage.key=value: write for example -p dpo.beta=0.3")
        try:
            out[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise LabError(f"The value in '{pair}' cannot be read as YAML: put it in quotes.") from error
    return out


def _keys(model: type[BaseModel]) -> list[str]:
    """The keys of a section, those of sections inside it included: `source`, `world`, `world.documents`, ..."""
    out = []
    for name, info in model.model_fields.items():
        out.append(name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            out += [f"{name}.{inner}" for inner in _keys(info.annotation)]
    return out


def _find(name: str) -> Path:
    shipped = FOLDER / f"{name}.yaml"
    if shipped.exists():
        return shipped
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise LabError(f"There is no recipe file {path}: check the path, or use one of {', '.join(names())}.")
    _known(name, names(), "recipe")
    raise AssertionError("unreachable")


def from_yaml(
    path: str | Path, shipped: Path, build: Callable[[Any], T], *, called: str, check: str, short: str = ""
) -> T:
    """What `build` makes of a YAML file that a setting names, of the shipped one where it names none.

    Raises LabError: there is no file `called` so (`check` says what to look at), a key that does not fit, or not such a file.
    """
    file = Path(path) if path else shipped
    try:
        return build(_parsed(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise LabError(f"There is no {called} in {file} ({error.strerror}): check {check}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise LabError(f"{file}, {key}: {first['msg']}. Look at {shipped.name} for an example.") from error
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise LabError(
            f"{file} is no {short or called} that can be read: look at {shipped.name} for an example."
        ) from error


_parsed = lru_cache(maxsize=16)(yaml.safe_load)  # by text: every plan of a run asks what the file says


def _read(path: Path) -> dict[str, Any]:
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not YAML that can be read: {str(error).splitlines()[0]}.") from error
    if not isinstance(body, dict):
        raise LabError(f"{path} must hold sections such as 'dpo:', each with 'key: value' lines.")
    return body


def _known(name: str, choices: Iterable[str], what: str) -> None:
    """Raise unless `name` is one of `choices`, naming the nearest ones."""
    choices = list(choices)
    if name in choices:
        return
    near = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.4)
    if not near and "." in str(name):
        near = difflib.get_close_matches(str(name).split(".")[-1], choices, n=1, cutoff=0.3)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(choices[:12])}."
    raise LabError(f"There is no {what} called '{name}': {hint}")


def _build(section: str, model: type[Settings], values: dict[str, Any]) -> Settings:
    for key in values:
        _known(f"{section}.{key}", [f"{section}.{f}" for f in model.model_fields], "setting")
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([section, *(str(p) for p in first["loc"])])
        if first["type"] == "extra_forbidden":
            _known(key, [f"{section}.{k}" for k in _keys(model)], "setting")
        what = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        given = "" if first["type"] in ("missing", "value_error") else f" (it is {first['input']!r})"
        raise LabError(f"{key}: {what}{given}.") from error
