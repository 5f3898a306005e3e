"""Between two rows of a table experts take no less than the one and no more than the other."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from model.blocks import Experts, FeedForward
from model.kernel_fitting import fit_kernel
from model.kernels import Kernel
from model.laws import sizes_of
from model.measurement import Distribution, Measurement
from model.operations import OperationKind, experts
from model.precision import Precision
from model.rows import usable_rows

HIDDEN, TOP_K = 2880, 4
TOKENS = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536)
TOKENS += (2048, 4096, 8192, 16384)
WIDTHS = (90, 180, 360, 720, 1440, 2880)
COUNTS = (32, 128)
FURTHEST = 0.15


def latency_ms(tokens, width, count):
    """Flat while weights are read, as tables are, and twice as slow a weight in one of two layers.

    No law of all layers tells that; what is learned beside it does.
    """
    many = count == COUNTS[-1]
    weights = 3 * HIDDEN * (width + 720 * many) * min(count, TOP_K * tokens)
    flops = 2 * TOP_K * tokens * 3 * HIDDEN * width
    return max(0.03 + 4e-10 * (1 + many) * weights, 2.5e-12 * flops)


def row(tokens, width, count):
    latency = latency_ms(tokens, width, count)
    return Measurement(
        kind="experts",
        precision=Precision.BF16,
        engine="sglang",
        shape={
            "tokens": float(tokens),
            "hidden_size": float(HIDDEN),
            "intermediate_size": float(width),
            "local_experts": float(count),
            "experts": float(count),
            "top_k": float(TOP_K),
            "touched": float(min(count, TOP_K * tokens)),
        },
        latency_ms=Distribution(median=latency, p10=latency, p90=latency, samples=1),
        group=f"{width}x{count}",
    )


@pytest.fixture(scope="module")
def kernel():
    measured = [row(tokens, w, n) for tokens in TOKENS for w in WIDTHS for n in COUNTS]
    return fit_kernel(OperationKind.EXPERTS, usable_rows(measured))


def test_experts_spread_over_more_ranks_than_were_measured_are_outside(kernel):
    """Rows of whole experts do not show what a rank does for the choices of others."""

    def outside(kernel, ranks):
        layer = FeedForward(intermediate_size=720)
        part = Experts(expert=layer, count=128, top_k=TOP_K, local=128 // ranks)
        asked = [experts(512, HIDDEN, part, Precision.BF16)]
        return kernel.outside(sizes_of(OperationKind.EXPERTS, asked))[0]

    read = Kernel.from_json(kernel.to_json())
    assert outside(read, 1) == 0.0
    assert outside(read, 4) == pytest.approx(np.log(4 / 1.25))
    spread = [row(tokens, w, n) for tokens in TOKENS for w in WIDTHS for n in COUNTS]
    spread += [replace(one, shape=one.shape | {"local_experts": 32.0}) for one in spread]
    assert outside(fit_kernel(OperationKind.EXPERTS, usable_rows(spread)), 4) == 0.0
    # One that was stored before that was kept.
    old = kernel.to_json()
    del old["most_ranks"]
    assert outside(Kernel.from_json(old), 4) == 0.0


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_predicted_beyond_the_rows_on_either_side(kernel, width, count):
    block = Experts(expert=FeedForward(intermediate_size=width), count=count, top_k=TOP_K)
    for few, many in pairwise(TOKENS):
        between = np.unique(np.linspace(few, many, 9).astype(int))[1:-1]
        if TOP_K * few < 4 * count or not len(between):
            continue  # drawn at random, choices meet fewer experts than the rows' did
        asked = [experts(int(tokens), HIDDEN, block, Precision.BF16) for tokens in between]
        predicted = kernel.latency_ms(sizes_of(OperationKind.EXPERTS, asked))
        assert predicted.min() > latency_ms(few, width, count) / (1 + FURTHEST), (few, many)
        assert predicted.max() < latency_ms(many, width, count) * (1 + FURTHEST), (few, many)
