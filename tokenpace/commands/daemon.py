"""`serve` and `config`: the two commands that run the daemon's code instead of calling it."""

from __future__ import annotations

import importlib
import json as jsonlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenpace.commands.session import USAGE, CommandError, Json, output
from tokenpace.render import text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_OWN_PACKAGES = frozenset({"model", "profiler", "server", "tokenpace"})

ServeAddress = Annotated[
    str | None, typer.Option(help="HOST:PORT to serve (127.0.0.1:50051); port 0 picks a free one.")
]
# A text: of an empty one typer would make the Path ".", which the settings cannot tell from it.
DataDir = Annotated[str | None, typer.Option(help="Folder of the store.", metavar="<path>")]
ProfileOnStart = Annotated[
    str | None, typer.Option(help="Campaign to run on start: off (the default), quick or full.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]
LogFormat = Annotated[
    str | None, typer.Option(help="auto, console or json; auto: console on a terminal, else json.")
]


def serve(
    *,
    address: ServeAddress = None,
    data_dir: DataDir = None,
    profile_on_start: ProfileOnStart = None,
    config: ConfigFile = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run the daemon until it is interrupted or terminated."""
    settings, _ = _load(
        address=address,
        data_dir=data_dir,
        profile_on_start=profile_on_start,
        config=config,
        log_level=log_level,
        log_format=log_format,
    )
    with _missing_extra_named():
        code = _load_module("server.daemon").serve(settings)
    if code:
        raise typer.Exit(code)


def config(
    *,
    address: ServeAddress = None,
    data_dir: DataDir = None,
    profile_on_start: ProfileOnStart = None,
    config: ConfigFile = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    json: Json = False,
) -> None:
    """Print the daemon's settings here, and where each value came from."""
    settings, origins = _load(
        address=address,
        data_dir=data_dir,
        profile_on_start=profile_on_start,
        config=config,
        log_level=log_level,
        log_format=log_format,
    )
    values = {name: getattr(settings, name) for name in origins}
    if json:
        content = {
            name: {"value": value, "origin": origins[name]} for name, value in values.items()
        }
        print(jsonlib.dumps(content, default=str))
        return
    rows = text.table("setting", "value", "origin")
    for name, value in values.items():
        rows.add_row(name, str(value), origins[name])
    output().print(rows)


def _load(**flags: object) -> tuple[Any, dict[str, str]]:
    with _missing_extra_named():
        configuration = _load_module("server.configuration")
    try:
        settings, origins = configuration.load(flags, os.environ)
    except configuration.ConfigurationError as error:
        raise CommandError(USAGE, str(error)) from error
    return settings, origins


def _load_module(name: str) -> ModuleType:
    # By name, at this moment: all other commands work without the daemon's packages.
    return importlib.import_module(name)


@contextmanager
def _missing_extra_named() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in _OWN_PACKAGES:
            raise
        raise CommandError(
            USAGE,
            f"this command needs {missing}: install the extras `server` and `profiler`: "
            "pip install 'tokenpace[server,profiler]'",
        ) from error
