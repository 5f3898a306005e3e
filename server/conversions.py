"""From the API's messages to the model's dataclasses and back.

Every check of a request is made here or in the dataclass itself; what is wrong is
collected, so that a caller sees all of it at once.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from model.engines import engine, engine_names
from model.errors import InvalidFieldError, UnknownNameError
from model.estimate import Provenance
from model.precision import Precision
from model.presets import preset
from model.sizes import architecture_of_size
from model.workload import Parallelism, Workload
from server.architectures import architecture_of_message, known_member
from server.errors import Violation, invalid_argument, not_found, quote
from server.huggingface_config import architecture_of_struct
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model.architecture import Architecture

_T = TypeVar("_T")

DEFAULT_CONFIDENCE = 0.9
LOWEST_CONFIDENCE, HIGHEST_CONFIDENCE = 0.5, 0.999

_PRECISIONS = {
    int(types_pb2.Precision.Value(f"PRECISION_{precision.name}")): precision
    for precision in Precision
}
_PROVENANCES = {int(provenance): provenance for provenance in Provenance}


class Violations:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Notes one field at fault."""
        self._found.append(Violation(field, description))

    @contextmanager
    def within(self, field: str) -> Iterator[None]:
        """Notes an InvalidFieldError of the block as one of the field ``field``."""
        try:
            yield
        except InvalidFieldError as error:
            located = error.within(field)
            self.add(located.field, located.message)

    def check(self) -> None:
        """Ends the call where anything was noted.

        Raises:
            ServiceError: INVALID_ARGUMENT.
        """
        if self._found:
            raise invalid_argument(self._found)


def architecture_of(spec: types_pb2.ModelSpec, field: str = "model") -> Architecture:
    """Returns the architecture that a model spec names, describes or counts.

    Args:
        spec: of which exactly one way is set.
        field: path of the spec in its request.

    Raises:
        ServiceError: NOT_FOUND, no preset has that name.
        InvalidFieldError: the spec cannot be used; its path begins with ``field``.
    """
    kind = spec.WhichOneof("spec")
    if kind == "preset" and spec.preset:
        try:
            return preset(spec.preset)
        except UnknownNameError as error:
            raise not_found("preset", error.name, error.message, f"{field}.preset") from None
    try:
        match kind:
            case "huggingface_config":
                return architecture_of_struct(spec.huggingface_config)
            case "parameter_count":
                return _architecture_of_size(spec.parameter_count)
            case "architecture":
                return architecture_of_message(spec.architecture)
    except InvalidFieldError as error:
        raise error.within(field) from None
    raise InvalidFieldError(
        f"{field}.preset" if kind else field,
        "required; set a preset, huggingface_config, parameter_count or architecture",
    )


def precision_of(number: int, field: str) -> Precision | None:
    """Returns the precision of an API number; None where it is unspecified.

    Raises:
        InvalidFieldError: no precision has that number.
    """
    return _member(_PRECISIONS, number, field)


def provenance_of(number: int, field: str) -> Provenance | None:
    """Returns the provenance of an API number; None where it is unspecified.

    Raises:
        InvalidFieldError: no provenance has that number.
    """
    return _member(_PROVENANCES, number, field)


def workload_of(message: types_pb2.Workload) -> Workload:
    """Returns what is asked of the model.

    Raises:
        InvalidFieldError: a value is out of range; names it.
    """
    return Workload(
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        batch_size=message.batch_size,
        concurrency=message.concurrency,
        cached_prefix_tokens=message.cached_prefix_tokens,
        prefill_chunk_tokens=message.prefill_chunk_tokens,
        expert_imbalance=message.expert_imbalance or 1.0,
    )


def parallelism_of(message: types_pb2.Parallelism) -> Parallelism:
    """Returns how the model is spread; zeros are ones.

    Raises:
        InvalidFieldError: a degree is out of range; names it.
    """
    return Parallelism(
        tensor=message.tensor or 1,
        pipeline=message.pipeline or 1,
        expert=message.expert or 1,
        data=message.data or 1,
    )


def confidence_of(value: float, field: str) -> float:
    """Returns the confidence of intervals; zero is 0.9.

    Raises:
        InvalidFieldError: it is not in 0.5 to 0.999.
    """
    if value == 0:
        return DEFAULT_CONFIDENCE
    if not LOWEST_CONFIDENCE <= value <= HIGHEST_CONFIDENCE:  # NaN fails this too
        raise InvalidFieldError(
            field, f"{value} is not in {LOWEST_CONFIDENCE} to {HIGHEST_CONFIDENCE}"
        )
    return value


REFERENCE_ENGINE = "vllm"
"""Engine that a device which is not here answers for, where none is named."""


def engine_name(name: str, default: str, field: str) -> str:
    """Returns the name of an engine; empty is ``default``.

    Raises:
        InvalidFieldError: no engine has that name.
    """
    try:
        return engine(name or default).name
    except UnknownNameError:
        raise InvalidFieldError(
            field, f"no engine is called {quote(name)}; known: {', '.join(engine_names())}"
        ) from None


_architecture_of_size = lru_cache(maxsize=512)(architecture_of_size)


def _member(members: Mapping[int, _T], number: int, field: str) -> _T | None:
    return known_member(members, number, field) if number else None
