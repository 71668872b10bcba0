"""Named recipes: the training settings of a paper, their sources, and what is left out of them."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lpmoe_bench.errors import UsageError
from lpmoe_bench.yaml_files import read_yaml

# Settings that belong to what they are options of: another choice of it leaves them out.
_OWNED = {"options": "method", "decoder_options": "decoder"}


class Recipe(BaseModel):
    """One entry of recipes.yaml. deviations: what a run here does otherwise than the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    paper: str
    settings: dict[str, Any]
    tasks: dict[str, dict[str, Any]] = {}
    sources: dict[str, str]
    deviations: list[str]


@cache
def load_recipes() -> Mapping[str, Recipe]:
    """Read the recipes that are shipped with the package."""
    content = read_yaml(Path(__file__).with_suffix(".yaml"))
    return {name: Recipe.model_validate(entry) for name, entry in content.items()}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of that name; raises UsageError for an unknown one."""
    recipes = load_recipes()
    if name not in recipes:
        raise UsageError.unknown("recipe", name, recipes)
    return recipes[name]


def recipe_layers(
    name: str, task: str, stronger: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the settings of a recipe for a task, weakest first; none for an empty name.

    `stronger` are the layers that win over it: where they choose another method or decoder, the
    recipe's options of its own are not for that.
    """
    if not name:
        return []
    recipe = get_recipe(name)
    # Options of LoRA mean nothing to Adapter: who chooses another method keeps none of them.
    settings = dict(recipe.settings)
    for options, owner in _OWNED.items():
        chosen = [layer[owner] for layer in stronger if owner in layer]
        if chosen and chosen[-1] != settings.get(owner):
            settings.pop(options, None)
    return [settings, recipe.tasks.get(task, {})]


def recipe_notes(name: str) -> list[str]:
    """Return what is said beside every number of a run with this recipe."""
    if not name:
        return []
    return [f"recipe {name}: {text}" for text in get_recipe(name).deviations]


def describe_recipe(name: str) -> list[tuple[str, str]]:
    """Return (field, text) of a recipe: settings, sources, deviations."""
    recipe = get_recipe(name)
    of_tasks = [
        (f"{setting} ({task})", text)
        for task, settings in recipe.tasks.items()
        for setting, text in _flat(settings)
    ]
    return [
        ("recipe", name),
        ("title", recipe.title),
        ("paper", recipe.paper),
        ("settings", ""),
        *((f"  {setting}", text) for setting, text in [*_flat(recipe.settings), *of_tasks]),
        ("sources", ""),
        *((f"  {setting}", text) for setting, text in recipe.sources.items()),
        ("left out or otherwise", ""),
        *(("", text) for text in recipe.deviations),
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield settings by dotted name, with their values as text."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, "none" if value is None else str(value)
