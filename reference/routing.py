"""Which experts the published rows with "balanced" assignments really met.

Their collector (github.com/ai-dynamo/aiconfigurator, Apache-2.0, commit 095f58a,
collector/helper.py, ``balanced_logits``) deals each token's choices out at equal distances,
and spreads tokens that are fewer than a distance over it. The rank that was timed is the
first, which has expert 0 however few tokens there are. vLLM's rows were dealt out in
bfloat16 (collector/vllm/collect_moe.py sets it as the default type): numbers of experts
from 128 on are rounded, so choices of several tokens fall on one expert. What was timed
agrees: of 384 experts, 32 tokens with 8 choices each take as long as 232 experts' weights.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

_BFLOAT16_STEPS = 256
"""Numbers of 8 significant bits up to a power of two."""


class Met(NamedTuple):
    """What the first rank executes.

    Attributes:
        assignments: pairs of a token and an expert of the rank.
        touched: experts of the rank that have any.
    """

    assignments: int
    touched: int


@lru_cache(maxsize=8_192)
def met(tokens: int, experts: int, top_k: int, held: int, *, rounded: bool) -> Met:
    """Returns what the rank that holds the first ``held`` experts executes.

    Args:
        tokens: routed, at least 1.
        experts: of the layer.
        top_k: choices of a token, at most ``experts``.
        held: experts of the rank, at least 1.
        rounded: whether the choices were computed in bfloat16.
    """
    loads = _loads(tokens, experts, top_k, rounded)[:held]
    return Met(sum(loads), sum(load > 0 for load in loads))


@lru_cache(maxsize=1024)
def _loads(tokens: int, experts: int, top_k: int, rounded: bool) -> tuple[int, ...]:
    """Returns the tokens of each expert."""
    distance = math.ceil(experts / top_k)
    loads = [0] * experts
    if tokens < distance:
        for token in range(tokens):
            for expert in _spread(token, tokens, distance, experts, top_k, rounded):
                loads[expert] += 1
        return tuple(loads)
    rounds, rest = divmod(tokens, experts)
    for token in range(experts):
        for choice in range(top_k):
            loads[(token + choice * distance) % experts] += rounds + (token < rest)
    return tuple(loads)


def _spread(
    token: int, tokens: int, distance: int, experts: int, top_k: int, rounded: bool
) -> set[int]:
    """Returns the choices of a token where there are fewer than a distance."""
    kept = _bfloat16 if rounded else float
    first = kept(kept(token * distance) / tokens)
    return {int(kept(kept(first + kept(choice * distance)) % experts)) for choice in range(top_k)}


def _bfloat16(value: float) -> float:
    """Returns the nearest number of 8 significant bits."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * _BFLOAT16_STEPS), exponent) / _BFLOAT16_STEPS
