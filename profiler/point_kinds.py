"""Which kinds of points a campaign measures, and how it shares its time among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler.design import Design

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiler.points import Point


@dataclass(frozen=True, slots=True)
class PointKind:
    """One kind of points.

    Attributes:
        name: of the kind.
        plural: for a person.
        points: draws them from a design.
        weight: share of the group's time.
        base_points: of the design, before the cost model has a say.
        first_guess_s: seconds that one takes, before one was measured.
        candidates: that the next ones are chosen from. More tell better what most points are
            like, and cost time where their operations are many.
    """

    name: str
    plural: str
    points: Callable[[Design], Iterator[Point]]
    weight: float
    base_points: int
    first_guess_s: float
    candidates: int = 12


@dataclass(frozen=True, slots=True)
class KindGroup:
    """Kinds of points that are measured side by side.

    Attributes:
        kinds: of points.
        share: of a precision's time in the end, over that of its dense points.
    """

    kinds: tuple[PointKind, ...]
    share: float = 1.0


DENSE = KindGroup(
    (
        PointKind("linear", "linears", Design.linears, 0.32, 60, 1.0, 150),
        PointKind("attention", "attentions", Design.attentions, 0.18, 90, 0.5, 300),
        PointKind("model", "models", Design.models, 0.5, 14, 6.0),
    )
)
"""Dense models of transformers."""
MIXTURES = KindGroup(
    (
        PointKind("experts", "mixtures of experts", Design.experts, 0.3, 30, 2.0, 100),
        PointKind("latent", "latent attentions", Design.latents, 0.2, 60, 0.5, 150),
        PointKind("mixture", "models of experts", Design.mixtures, 0.5, 8, 8.0),
    ),
    share=0.4,
)
"""Experts and latent attention of transformers, alone and in whole layers."""
PLAIN = KindGroup(
    (
        PointKind(
            "static_attention", "static attentions", Design.static_attentions, 0.3, 60, 0.5, 300
        ),
        PointKind("plain_model", "plain models", Design.plain_models, 0.5, 10, 5.0),
        PointKind("plain_mixture", "plain models of experts", Design.plain_mixtures, 0.2, 4, 8.0),
    ),
    share=0.6,
)
"""Plain layers; linears and experts alone are measured for all engines."""
PAGED = KindGroup(
    (PointKind("paged_attention", "paged attentions", Design.paged_attentions, 1.0, 60, 0.5, 300),),
    share=0.1,
)
"""Attention over pages, which engines with continuous batching are priced by."""
PER_TENSOR = KindGroup(
    (
        PointKind(
            "linear_per_tensor",
            "linears per tensor",
            Design.linears_per_tensor,
            1.0,
            30,
            1.0,
            150,
        ),
    ),
    share=0.15,
)
"""Linears in fp8 with one scale for all weights, which serving engines are priced by."""
EVERY_KIND = tuple(
    kind for group in (DENSE, MIXTURES, PLAIN, PAGED, PER_TENSOR) for kind in group.kinds
)
"""All of the groups', which a device is checked with."""
