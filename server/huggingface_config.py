"""A config.json as the API carries it, in a Struct."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf import struct_pb2

from model.errors import InvalidFieldError
from model.huggingface import architecture_from_config

if TYPE_CHECKING:
    from model.architecture import Architecture

MAX_CONFIG_BYTES = 1 << 20

# Larger configurations are read again each time: a cache of them would be a leak.
_CACHED_CONFIG_BYTES = 32 << 10


def config_of(message: struct_pb2.Struct) -> dict[str, object]:
    """Returns a Struct as a dictionary.

    Raises:
        InvalidFieldError: a number is not finite; names its key.
    """
    return {key: _plain(value, key) for key, value in message.fields.items()}


def _plain(value: struct_pb2.Value, path: str) -> object:
    match value.WhichOneof("kind"):
        case "number_value":
            if not math.isfinite(value.number_value):
                raise InvalidFieldError(path, f"{value.number_value} is not a finite number")
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            fields = value.struct_value.fields.items()
            return {key: _plain(inner, f"{path}.{key}") for key, inner in fields}
        case "list_value":
            items = enumerate(value.list_value.values)
            return [_plain(inner, f"{path}[{index}]") for index, inner in items]
    return None


def architecture_of_struct(config: struct_pb2.Struct) -> Architecture:
    """Returns the architecture that a config.json in a Struct describes.

    Raises:
        InvalidFieldError: it cannot be used; its path begins with "huggingface_config".
    """
    size = config.ByteSize()
    if size > MAX_CONFIG_BYTES:
        raise InvalidFieldError(
            "huggingface_config",
            f"{size} bytes are more than {MAX_CONFIG_BYTES}; leave out what is no setting",
        )
    try:
        if size > _CACHED_CONFIG_BYTES:
            return architecture_from_config(config_of(config))
        return _cached_config(config.SerializeToString(deterministic=True))
    except InvalidFieldError as error:
        raise error.within("huggingface_config") from None


@lru_cache(maxsize=128)
def _cached_config(serialised: bytes) -> Architecture:
    return architecture_from_config(config_of(struct_pb2.Struct.FromString(serialised)))
