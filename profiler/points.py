"""What can be timed alone, and which sizes a measurement of it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.operations import OperationKind

if TYPE_CHECKING:
    from model.architecture import Architecture


@dataclass(frozen=True, slots=True)
class LinearPoint:
    """``y[m, n] = x[m, k] @ w[k, n]`` at several ``m``: the weights are made once."""

    n: int
    k: int
    rows: tuple[int, ...]
    transposed: bool = False

    @property
    def kind(self) -> OperationKind:
        """Kind of the operation."""
        return OperationKind.LINEAR_TRANSPOSED if self.transposed else OperationKind.LINEAR

    @property
    def group(self) -> str:
        """Points of one weight matrix are held out together."""
        return f"{self.kind}-{self.n}x{self.k}"


@dataclass(frozen=True, slots=True)
class AttentionPoint:
    """Attention of ``query_tokens`` over ``kv_tokens``, the cache's update included."""

    sequences: int
    query_tokens: int
    kv_tokens: int
    query_heads: int
    kv_heads: int
    head_dim: int

    @property
    def group(self) -> str:
        """Points of one set of heads are held out together."""
        return f"attention-{self.query_heads}-{self.kv_heads}-{self.head_dim}"


@dataclass(frozen=True, slots=True)
class ExpertsPoint:
    """The routed experts of one rank at several numbers of tokens: the weights are made once.

    Attributes:
        hidden_size: width of the residual stream.
        intermediate_size: inner width of one expert on the rank.
        local_experts: on the rank, of ``experts`` in all.
        experts: that tokens choose from.
        top_k: experts that a token is sent to.
        tokens: that are routed, those of all ranks that share the experts.
        imbalance: load of this rank over the mean, at most ``experts / local_experts``.
    """

    hidden_size: int
    intermediate_size: int
    local_experts: int
    experts: int
    top_k: int
    tokens: tuple[int, ...]
    imbalance: float = 1.0

    @property
    def group(self) -> str:
        """Points of one set of experts are held out together."""
        return (
            f"experts-{self.local_experts}of{self.experts}x{self.top_k}"
            f"-{self.hidden_size}x{self.intermediate_size}"
        )


@dataclass(frozen=True, slots=True)
class LatentPoint:
    """Latent attention of ``query_tokens`` over ``kv_tokens``, the cache's update included."""

    sequences: int
    query_tokens: int
    kv_tokens: int
    query_heads: int
    kv_rank: int
    rope_dim: int
    head_dim: int
    value_dim: int

    @property
    def group(self) -> str:
        """Points of one set of heads are held out together."""
        return (
            f"mla-{self.query_heads}-{self.kv_rank}-{self.rope_dim}"
            f"-{self.head_dim}-{self.value_dim}"
        )


@dataclass(frozen=True, slots=True)
class BatchedLinearPoint:
    """``batch`` products ``y[m, n] = x[m, k] @ w[k, n]`` at several ``m``."""

    n: int
    k: int
    batch: int
    rows: tuple[int, ...]

    @property
    def group(self) -> str:
        """Points of one set of matrices are held out together."""
        return f"batched_linear-{self.batch}-{self.n}x{self.k}"


@dataclass(frozen=True, slots=True)
class ForwardPoint:
    """One forward pass of equal sequences through the layers of a model."""

    sequences: int
    query_tokens: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class GeneratePoint:
    """One real ``generate()``."""

    sequences: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A small model built once: passes through its layers, and real ``generate()`` runs."""

    architecture: Architecture
    forwards: tuple[ForwardPoint, ...]
    generates: tuple[GeneratePoint, ...]

    @property
    def group(self) -> str:
        """All that one architecture is measured in is held out together."""
        return self.architecture.name


Point = LinearPoint | AttentionPoint | ExpertsPoint | LatentPoint | BatchedLinearPoint | ModelPoint
