"""JSON with bytes: a line of JSON that says where each value is, and the values after it.

Trees are tens of megabytes; as text in the JSON itself they take three times as long to read.
"""

from __future__ import annotations

import json
from typing import Any

_PLACE = "bytes"
"""The one key of the object that stands for bytes: where they begin and end."""


def pack(data: dict[str, Any]) -> bytes:
    """Returns what :func:`unpack` reads.

    Args:
        data: as for JSON, but that values may be bytes.
    """
    values: list[bytes] = []
    end = 0

    def place(value: object) -> dict[str, list[int]]:
        nonlocal end
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} is neither JSON nor bytes")
        values.append(value)
        begin, end = end, end + len(value)
        return {_PLACE: [begin, end]}

    head = json.dumps(data, default=place).encode()
    return b"\n".join([head, b"".join(values)])


def unpack(packed: bytes) -> Any:  # noqa: ANN401 - whatever was packed
    """Returns what :func:`pack` was given.

    Raises:
        ValueError: the bytes are none, or cut off.
    """
    head, _, tail = packed.partition(b"\n")

    def value(found: dict[str, Any]) -> Any:  # noqa: ANN401 - as above
        if found.keys() != {_PLACE}:
            return found
        begin, end = found[_PLACE]
        if not 0 <= begin <= end <= len(tail):
            raise ValueError("bytes are missing at the end")
        return tail[begin:end]

    return json.loads(head, object_hook=value)
