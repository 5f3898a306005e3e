"""Settings of the daemon and where each of them came from.

One rule decides: a flag wins over the environment, the environment over the
file, the file over the default. Imports nothing heavy, as the command line
loads it too.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from model.committed import FOLDER
from server.settings import (
    address,
    choice,
    duration,
    fraction,
    quoted,
    size_in_bytes,
    text,
    whole_number,
)
from server.settings import path as directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

APPLICATION = "tokenpace"
PREFIX = "TOKENPACE_"


class ConfigurationError(ValueError):
    """A setting that cannot be used.

    Attributes:
        key: name of the setting, empty when the file as a whole is at fault.
        origin: where its value came from.
    """

    def __init__(self, key: str, origin: str, message: str) -> None:
        super().__init__(f"{key} ({origin}): {message}" if key else f"{origin}: {message}")
        self.key = key
        self.origin = origin


def _setting(read: Callable[[object], object], help_text: str) -> dict[str, object]:
    return {"read": read, "help": help_text}


def _data_dir() -> Path:
    return platformdirs.user_data_path(APPLICATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Settings of the daemon; durations are seconds, sizes are bytes."""

    address: str = field(
        default="127.0.0.1:50051",
        metadata=_setting(address, "HOST:PORT to serve; port 0 picks one"),
    )
    data_dir: Path = field(
        default_factory=_data_dir, metadata=_setting(directory, "folder of the store")
    )
    database_url: str = field(
        default="", metadata=_setting(text, "SQLAlchemy URL; empty: an SQLite file in data_dir")
    )
    reference_dir: Path = field(
        default=FOLDER,
        metadata=_setting(directory, "folder of measurements of cards, taken in after the start"),
    )
    profile_on_start: str = field(
        default="off",
        metadata=_setting(
            choice("off", "quick", "full"), "campaign to run on start: off, quick or full"
        ),
    )
    quick_budget: float = field(
        default=110.0, metadata=_setting(duration(1, 86_400), "time of the quick campaign")
    )
    full_budget: float = field(
        default=600.0, metadata=_setting(duration(1, 86_400), "time of the full campaign")
    )
    worker_memory_fraction: float = field(
        default=0.8, metadata=_setting(fraction, "share of the free memory that a worker may take")
    )
    max_store_bytes: int = field(
        default=0,
        metadata=_setting(
            size_in_bytes(0, 1 << 50), "largest size of the SQLite file; 0: no limit"
        ),
    )
    max_message_bytes: int = field(
        default=16 << 20,
        metadata=_setting(size_in_bytes(1 << 10, 1 << 30), "largest request that is received"),
    )
    max_queue: int = field(
        default=8,
        metadata=_setting(whole_number(0, 10_000), "Measure calls that may wait for a device"),
    )
    max_workers: int = field(
        default=16, metadata=_setting(whole_number(1, 1_024), "threads that answer short calls")
    )
    max_streams: int = field(
        default=32, metadata=_setting(whole_number(1, 4_096), "streams and fits at one time")
    )
    fit_timeout: float = field(
        default=300.0, metadata=_setting(duration(1, 86_400), "longest time of FitCostModel")
    )
    drain_seconds: float = field(
        default=10.0,
        metadata=_setting(duration(0, 3_600), "time for calls in flight when the daemon ends"),
    )
    tick: float = field(
        default=1.0, metadata=_setting(duration(0.05, 60), "time between looks at the schedules")
    )
    log_level: str = field(
        default="info",
        metadata=_setting(
            choice("debug", "info", "warning", "error"), "least level that is logged"
        ),
    )
    log_format: str = field(
        default="auto",
        metadata=_setting(
            choice("auto", "console", "json"), "auto: console on a terminal, else json"
        ),
    )


def load(
    flags: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[Configuration, dict[str, str]]:
    """Returns the settings and the origin of each.

    Args:
        flags: settings from the command line by name, and ``config``, the path
            of a TOML file; None stands for a flag that was not given.
        environ: environment variables; ``TOKENPACE_<NAME>`` sets a setting and
            ``TOKENPACE_CONFIG`` names the file.

    Returns:
        The configuration, and for each setting "flag --data-dir",
        "environment TOKENPACE_DATA_DIR", "file PATH" or "default".

    Raises:
        ConfigurationError: a value cannot be used, a setting is unknown, or the
            file cannot be read.
    """
    known = {setting.name: setting for setting in fields(Configuration)}
    given = {name: value for name, value in flags.items() if value is not None and name != "config"}
    if unknown := given.keys() - known.keys():
        raise ConfigurationError(min(unknown), "flag", _unknown(known))
    file, in_file = _read_file(flags.get("config"), environ)
    if unknown := in_file.keys() - known.keys():
        raise ConfigurationError(min(unknown), f"file {file}", _unknown(known))

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, setting in known.items():
        variable = PREFIX + name.upper()
        if name in given:
            value, origin = given[name], f"flag --{name.replace('_', '-')}"
        elif variable in environ:
            value, origin = environ[variable], f"environment {variable}"
        elif name in in_file:
            value, origin = in_file[name], f"file {file}"
        else:
            origins[name] = "default"
            continue
        try:
            values[name] = setting.metadata["read"](value)
        except ValueError as error:
            raise ConfigurationError(name, origin, str(error)) from error
        origins[name] = origin
    return Configuration(**values), origins


def descriptions() -> dict[str, str]:
    """Returns what each setting means, in the order of the fields."""
    return {setting.name: setting.metadata["help"] for setting in fields(Configuration)}


def _unknown(known: Mapping[str, object]) -> str:
    return f"no such setting; there are {', '.join(known)}"


def _read_file(flag: object, environ: Mapping[str, str]) -> tuple[Path, dict[str, object]]:
    named = flag if flag is not None else environ.get(f"{PREFIX}CONFIG")
    if named is None:
        file = platformdirs.user_config_path(APPLICATION) / "config.toml"
        if not file.is_file():
            return file, {}
    else:
        file = Path(str(named)).expanduser()
    origin = f"file {file}"
    try:
        return file, tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"cannot be read ({error.strerror}); name a readable TOML file with --config"
        raise ConfigurationError("", origin, message) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("", origin, "is not UTF-8; save it as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        message = f"is not TOML ({error}); write one setting a line, as in address = {quoted('…')}"
        raise ConfigurationError("", origin, message) from error
