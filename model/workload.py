"""What is asked of a model and how it is spread over devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import InvalidFieldError

if TYPE_CHECKING:
    from model.architecture import Architecture

MAX_TOKENS = 16_777_216
MAX_SEQUENCES = 1_048_576
MAX_DEGREE = 4_096
MAX_IMBALANCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests of one size.

    Attributes:
        input_tokens: prompt length of each sequence, at least 1.
        output_tokens: generated tokens of each sequence; 0 asks for prefill only.
        batch_size: sequences decoded together; 0 is 1, or no cap with ``concurrency``.
        concurrency: requests in flight (continuous batching); 0 is static batching.
        cached_prefix_tokens: prompt tokens whose keys and values are cached already.
        prefill_chunk_tokens: prompt tokens in one step at the most; 0 is no limit.
        expert_imbalance: load of the fullest expert-parallel rank over the mean, 1 to 64.
    """

    input_tokens: int
    output_tokens: int = 0
    batch_size: int = 0
    concurrency: int = 0
    cached_prefix_tokens: int = 0
    prefill_chunk_tokens: int = 0
    expert_imbalance: float = 1.0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            InvalidFieldError: a value is out of range; names the field.
        """
        _check("input_tokens", self.input_tokens, 1, MAX_TOKENS)
        _check("output_tokens", self.output_tokens, 0, MAX_TOKENS)
        _check("batch_size", self.batch_size, 0, MAX_SEQUENCES)
        _check("concurrency", self.concurrency, 0, MAX_SEQUENCES)
        _check("cached_prefix_tokens", self.cached_prefix_tokens, 0, self.input_tokens - 1)
        _check("prefill_chunk_tokens", self.prefill_chunk_tokens, 0, MAX_TOKENS)
        _check("expert_imbalance", self.expert_imbalance, 1, MAX_IMBALANCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """Parallel degrees; devices in use are tensor x pipeline x data."""

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            InvalidFieldError: a degree is out of range; names it.
        """
        for name in ("tensor", "pipeline", "expert", "data"):
            _check(name, getattr(self, name), 1, MAX_DEGREE)
        if (self.tensor * self.data) % self.expert:
            raise InvalidFieldError(
                "expert",
                f"{self.expert} does not divide tensor x data = {self.tensor * self.data}",
            )

    @property
    def devices(self) -> int:
        """Devices in use."""
        return self.tensor * self.pipeline * self.data

    def check(self, architecture: Architecture) -> None:
        """Checks that the architecture can be spread so.

        Raises:
            InvalidFieldError: a degree does not fit; names it.
        """
        if self.expert > 1 and architecture.experts is None:
            raise InvalidFieldError("expert", "a dense model has no experts to spread; use 1")
        for group in architecture.layers:
            group.layer.shard(self.tensor, data=self.data, expert=self.expert)
        if self.pipeline > architecture.layer_count:
            raise InvalidFieldError(
                "pipeline", f"{self.pipeline} exceeds the {architecture.layer_count} layers"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Equal sequences in one step.

    Attributes:
        count: number of sequences.
        query_tokens: tokens processed of each: 1 in decode, the prompt or a chunk in prefill.
        kv_tokens: tokens attended to at the end of the step, the query's own included.
    """

    count: int
    query_tokens: int
    kv_tokens: int

    @property
    def tokens(self) -> int:
        """Tokens processed of all sequences."""
        return self.count * self.query_tokens


Step = tuple[Sequences, ...]
"""One forward pass: decode, prefill, a chunk of a prefill, or a mix of them."""


def _check(name: str, value: float, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidFieldError(name, f"{value} is not in {low} to {high}")
