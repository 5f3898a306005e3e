"""Published models by name: data files with the keys of their config.json and their source."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from model.errors import UnknownNameError
from model.huggingface import architecture_from_config

if TYPE_CHECKING:
    from model.architecture import Architecture

_FOLDER = files("model") / "data" / "presets"


@lru_cache(maxsize=1)
def preset_names() -> tuple[str, ...]:
    """Returns the names of all presets in alphabetical order."""
    names = (entry.name for entry in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))


@lru_cache(maxsize=256)
def preset(name: str) -> Architecture:
    """Returns a published model's architecture, read from its data file on first use.

    Args:
        name: lower case with dashes, such as "llama-3.1-8b".

    Raises:
        UnknownNameError: no preset has that name; tells the closest ones.
    """
    if name not in preset_names():
        raise UnknownNameError("preset", name, preset_names())
    document = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return replace(architecture_from_config(document["config"], name), source=document["source"])
