"""Reads what a person passes: models, number formats, durations.

The client and the command share it, so that both take the same spellings.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct

from tokenpace.v1 import profiler_pb2, types_pb2

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
    from google.protobuf.message import Message

ModelLike = (
    str
    | float
    | os.PathLike[str]
    | Mapping[str, Any]
    | types_pb2.Architecture
    | types_pb2.ModelSpec
)
"""A preset, a parameter count, a config.json (path or content), dimensions, or the message."""

DurationLike = str | float | timedelta
"""Seconds, a timedelta, or text such as "90s", "10m", "1h"."""

_DEEPEST = 32
"""Objects in one another that protobuf reads: each takes three of its 100 messages."""
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_SECONDS = 315_576_000_000.0  # 10,000 years, the range of google.protobuf.Duration


class ArgumentError(ValueError):
    """A value that cannot be sent; ``field`` names it, ``message`` says why and the remedy."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def model_spec(value: ModelLike) -> types_pb2.ModelSpec:
    """Returns the message for a model.

    Text that ends in ``.json`` or holds a path separator is a config.json's
    path, text that reads as a number is a parameter count, all other text is
    the name of a preset.

    Raises:
        ArgumentError: the file cannot be read or is no JSON object, or the
            value is of another type.
    """
    match value:
        case types_pb2.ModelSpec():
            return value
        case types_pb2.Architecture():
            return types_pb2.ModelSpec(architecture=value)
        case Mapping():
            return types_pb2.ModelSpec(huggingface_config=_struct(value))
        case os.PathLike():
            return types_pb2.ModelSpec(huggingface_config=_struct(_read(Path(value))))
        case str():
            return _model_spec_of_text(value)
        case int() | float() if not isinstance(value, bool):
            return types_pb2.ModelSpec(parameter_count=value)
        case _:
            raise ArgumentError("model", f"{type(value).__name__} is not a model; {_MODEL_REMEDY}")


_MODEL_REMEDY = "pass a preset's name, the path of a config.json, or a parameter count such as 7e9"


def _model_spec_of_text(text: str) -> types_pb2.ModelSpec:
    if not text.strip():
        raise ArgumentError("model", f"is empty; {_MODEL_REMEDY}")
    if text.endswith(".json") or os.sep in text:
        return model_spec(Path(text))
    try:
        return types_pb2.ModelSpec(parameter_count=float(text))
    except ValueError:
        return types_pb2.ModelSpec(preset=text)


def _read(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        path = path / "config.json"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArgumentError("model", f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors alike
        raise ArgumentError("model", f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ArgumentError("model", f"{path} holds no JSON object")
    return content


def _struct(config: Mapping[str, Any]) -> Struct:
    try:
        depth = _depth(config)
        if depth <= _DEEPEST:
            return ParseDict(dict(config), Struct())
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        raise ArgumentError("model", f"the configuration is not plain JSON: {error}") from error
    raise ArgumentError(
        "model",
        f"the configuration holds {depth} objects in one another, and no more than {_DEEPEST}"
        " can be sent; leave out what is no setting",
    )


def _depth(value: object) -> int:
    """Returns how many objects and lists are in one another, the value among them."""
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def seconds(value: DurationLike, field: str = "budget") -> float:
    """Returns a duration in seconds.

    Raises:
        ArgumentError: it is no duration, or below zero.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        if not _DURATION.fullmatch(value.strip()):
            raise ArgumentError(field, f"{value!r} is not a duration; use 90s, 10m or 1h")
        result = sum(float(n) * _SECONDS[unit] for n, unit in _DURATION_PART.findall(value))
    else:
        result = float(value)
    if not 0 <= result <= _MAX_SECONDS:  # refuses NaN too
        raise ArgumentError(field, f"{value!r} is not a duration; use 90s, 10m or 1h")
    return result


def duration(value: DurationLike | None, field: str = "budget") -> Duration | None:
    """Returns the message for a duration; None stays None, which is unset.

    Raises:
        ArgumentError: it is no duration, or below zero.
    """
    if value is None:
        return None
    nanos = round(seconds(value, field) * 1e9)
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def precision(
    value: str | types_pb2.Precision | None, field: str = "precision"
) -> types_pb2.Precision:
    """Returns the enum number of a precision spelt as in "bf16" or "fp8-block"; None is 0.

    Raises:
        ArgumentError: no such precision.
    """
    return cast("types_pb2.Precision", _enum(types_pb2.Precision, "PRECISION_", value, field))


def provenance(
    value: str | types_pb2.Provenance | None, field: str = "require_provenance"
) -> types_pb2.Provenance:
    """Returns the enum number of a provenance spelt as in "measured-locally"; None is 0.

    Raises:
        ArgumentError: no such provenance.
    """
    return cast("types_pb2.Provenance", _enum(types_pb2.Provenance, "PROVENANCE_", value, field))


def scope(
    value: str | profiler_pb2.MeasureScope | None, field: str = "scope"
) -> profiler_pb2.MeasureScope:
    """Returns the enum number of a measurement's scope, "layer" or "model"; None is 0.

    Raises:
        ArgumentError: no such scope.
    """
    return cast(
        "profiler_pb2.MeasureScope",
        _enum(profiler_pb2.MeasureScope, "MEASURE_SCOPE_", value, field),
    )


def spellings(enum: EnumTypeWrapper, prefix: str) -> list[str]:
    """Returns an enum's values as a person spells them, without the unspecified one."""
    return [name.removeprefix(prefix).lower().replace("_", "-") for name in enum.keys()[1:]]


def _enum(enum: EnumTypeWrapper, prefix: str, value: str | int | None, field: str) -> int:
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    name = prefix + value.strip().upper().removeprefix(prefix).replace("-", "_")
    if name not in enum.keys():  # noqa: SIM118 - an enum wrapper is no mapping
        known = ", ".join(spellings(enum, prefix))
        raise ArgumentError(field, f"{value!r} is not known; use one of {known}")
    return enum.Value(name)


def fill(target: Message, fields: Mapping[str, Any]) -> None:
    """Sets fields of a message, naming the one that does not fit.

    Raises:
        ArgumentError: a value is of the wrong type or does not fit its field.
    """
    for name, value in fields.items():
        try:
            setattr(target, name, value)
        except (TypeError, ValueError) as error:
            raise ArgumentError(name, f"{value!r} does not fit: {error}") from error
