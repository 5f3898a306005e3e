"""What tests of several folders share."""

import gc
import os
import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path

import numpy as np
import pytest

from model.dimensions import architecture_of_dimensions
from model.execution import FUSED_ENGINES, PAGED_ENGINES
from model.measurement import Distribution, Measurement
from model.operations import OperationKind
from model.overheads import SERIAL
from model.precision import Precision
from model.shapes import architecture_shape, operations_of
from model.workload import Sequences

# Daemons that tests start would fit the committed measurements of every card; here are none.
os.environ["TOKENPACE_REFERENCE_DIR"] = str(Path(__file__).parent)

try:
    import hypothesis
except ModuleNotFoundError:
    # `make gpu-check` installs nothing: tests of random input skip, those beside them run.
    class _Strategy:
        def __getattr__(self, name):
            return _Strategy()

        def __call__(self, *arguments, **named):
            return self

        __or__ = __call__

    def _given(*arguments, **named):
        return pytest.mark.skip(reason="needs hypothesis")

    # torch looks for its specification.
    hypothesis = module_from_spec(ModuleSpec("hypothesis", None))
    hypothesis.given = _given
    hypothesis.settings = lambda *arguments, **named: lambda test: test
    hypothesis.strategies = _Strategy()
    sys.modules["hypothesis"] = hypothesis
else:
    # A machine that is shared may be slow at any moment: no example fails by the clock.
    hypothesis.settings.register_profile("shared machine", deadline=None)
    hypothesis.settings.load_profile("shared machine")


@dataclass
class SyntheticDevice:
    """A device that obeys a known law, with log-normal noise on what is timed.

    Rates are FLOPs and bytes a millisecond; overheads milliseconds a unit, per size of the
    operation's shape.
    """

    rng: np.random.Generator
    noise: float = 0.02
    slowness: float = 1.0
    precision: Precision = Precision.FP32
    engine: str = "transformers"
    launches: tuple = ()
    """Milliseconds of a layer and of each of its kernels that the host launches ahead."""
    rates: dict = field(
        default_factory=lambda: {
            OperationKind.LINEAR: (0.004, 8e7, 1.2e7),
            OperationKind.LINEAR_TRANSPOSED: (0.004, 8e7, 1.2e7),
            OperationKind.LINEAR_PER_TENSOR: (0.002, 16e7, 2.4e7),
            OperationKind.ATTENTION: (0.02, 3e7, 8e6),
            OperationKind.STATIC_ATTENTION: (0.01, 3e7, 16e6),
            OperationKind.PAGED_ATTENTION: (0.03, 3e7, 4e6),
        }
    )
    overheads: dict = field(
        default_factory=lambda: {
            OperationKind.EMBEDDING: (0.0, lambda tokens, hidden: 4e-7 * tokens * hidden),
            OperationKind.LAYER_OVERHEAD: (
                0.01,
                lambda kernels, elements, _: 0.003 * kernels + 3e-7 * elements,
            ),
            OperationKind.STEP_OVERHEAD: (0.4, lambda _, logits, __: 1e-7 * logits),
            OperationKind.REQUEST_OVERHEAD: (1.0, lambda: 0.0),
        }
    )

    def true_ms(self, operation):
        """Milliseconds of one run without noise."""
        if operation.kind in self.rates:
            start, flops, moved = self.rates[operation.kind]
            value = start + np.hypot(operation.flops / flops, operation.bytes / moved)
        else:
            fixed, sized = self.overheads[operation.kind]
            value = fixed + sized(*operation.shape)
        return self.slowness * value

    def truth(self, operations):
        """Milliseconds of all runs without noise: the longer of launches and what they start."""
        each = [(o, self.true_ms(o) * o.count) for o in operations]
        if not self.launches:
            return sum(ms for _, ms in each)
        device = sum(ms for o, ms in each if o.kind not in SERIAL)
        layer, kernel = self.launches
        host = self.slowness * sum(
            o.count * (layer + kernel * o.shape[0])
            for o in operations
            if o.kind is OperationKind.LAYER_OVERHEAD
        )
        return max(host, device) + sum(ms for o, ms in each if o.kind in SERIAL)

    def time(self, kind, shape, group, flags=()):
        """The measurement of a point."""
        point = Measurement(
            kind=kind,
            precision=self.precision,
            engine=self.engine,
            shape={name: float(size) for name, size in shape.items()},
            latency_ms=Distribution(median=1.0, p10=1.0, p90=1.0, samples=5),
            group=group,
            flags=flags,
        )
        value = float(self.truth(operations_of(point)) * np.exp(self.noise * self.rng.normal()))
        spread = Distribution(median=value, p10=0.99 * value, p90=1.01 * value, samples=5)
        return Measurement(
            kind=point.kind,
            precision=point.precision,
            engine=point.engine,
            shape=point.shape,
            latency_ms=spread,
            group=group,
            flags=flags,
        )

    def linear(self, m, n, k, kind="linear"):
        return self.time(str(kind), {"m": m, "n": n, "k": k}, f"{kind}-{n}x{k}")

    def attention(self, sequences, query, kv, heads, kv_heads, head_dim):
        shape = {
            "sequences": sequences,
            "query_tokens": query,
            "kv_tokens": kv,
            "query_heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
        }
        kind = "static_attention" if self.engine in FUSED_ENGINES else "attention"
        kind = "paged_attention" if self.engine in PAGED_ENGINES else kind
        return self.time(kind, shape, f"{kind}-{heads}-{kv_heads}-{head_dim}")

    def model(self, architecture, forwards, generates):
        """What is measured of one model: passes and runs, each (sequences, query, kv)."""
        rows = []
        kinds = [("layer", s) for s in forwards]
        for sequences, prompt, tokens in generates:
            kinds += [
                ("prefill", (sequences, prompt, prompt)),
                ("decode", (sequences, 1, prompt + tokens // 2)),
            ]
        for kind, (count, query, kv) in kinds:
            step = Sequences(count=count, query_tokens=query, kv_tokens=kv)
            shape = architecture_shape(architecture, (step,))
            rows.append(self.time(kind, shape, architecture.name))
        return rows

    def architecture(self, name):
        """A small architecture drawn at random."""
        head_dim = int(self.rng.choice([32, 64]))
        heads = int(self.rng.choice([4, 6, 8, 12]))
        hidden = heads * head_dim
        return architecture_of_dimensions(
            name=name,
            hidden_size=hidden,
            layer_count=int(self.rng.integers(2, 12)),
            query_heads=heads,
            kv_heads=int(self.rng.choice([1, heads // 2, heads])),
            head_dim=head_dim,
            intermediate_size=64 * int(self.rng.integers(2, 40)),
            vocab_size=64 * int(self.rng.integers(20, 400)),
            tied_embeddings=True,
            qkv_bias=bool(self.rng.integers(2)),
        )

    def campaign(self, linears=40, attentions=100, models=10):
        """What a campaign measures: so many weight matrices, attentions and models."""
        rows = []
        for _ in range(linears):
            n, k = (64 * int(v) for v in self.rng.integers(2, 48, size=2))
            rows += [self.linear(m, n, k) for m in (1, int(self.rng.integers(2, 16)), 40, 300)]
        for index in range(attentions):
            kv = int(np.exp(self.rng.uniform(np.log(16), np.log(2048))))
            query = (1, kv, 1, max(2, kv // 3))[index % 4]
            heads = int(self.rng.choice([4, 6, 8, 12]))
            kv_heads = int(self.rng.choice([1, heads // 2, heads]))
            sequences = int(self.rng.choice([1, 2, 4, 8]))
            head_dim = int(self.rng.choice([32, 64]))
            rows.append(self.attention(sequences, query, kv, heads, kv_heads, head_dim))
        for index in range(models):
            forwards = ((1, 1, 100), (4, 1, 300), (1, 200, 200), (1, 50, 250))
            generates = ((1, 32, 9), (int(self.rng.choice([2, 4, 8])), 128, 7))
            rows += self.model(self.architecture(f"model-{index}"), forwards, generates)
        return rows


@pytest.fixture(scope="session")
def synthetic_device():
    """Makes a device that obeys a known law; equal seeds make equal devices."""
    return lambda seed=0, **changes: SyntheticDevice(np.random.default_rng(seed), **changes)


def pytest_collection() -> None:
    """Collects no garbage while torch and the rest of the modules load."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leaves what they hold out of all collections to come, each of which would walk it."""
    gc.freeze()
    gc.enable()
    # Rows of tables and of fits are many, and hold no cycles.
    gc.set_threshold(50_000, 10, 10)


def pytest_sessionfinish() -> None:
    """Lets the interpreter's end collect all in good order."""
    gc.unfreeze()
