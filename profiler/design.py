"""Which points a campaign measures: a space-filling design over what models look like.

A scrambled Sobol sequence draws architectures; their tensor-parallel ranks'
projections, attentions and layers are the points, so that the design is as
dense as real models are. Points too long for the device are made shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch.quasirandom import SobolEngine

from model.blocks import Attention
from model.dimensions import architecture_of_dimensions
from model.execution import layer_operations
from model.huggingface import architecture_from_config
from model.operations import OperationKind
from model.precision import Precision
from model.workload import Sequences
from profiler.experts import ExpertsPoint
from profiler.latent import BatchedLinearPoint, LatentPoint
from profiler.models import ModelPoint
from profiler.operations import AttentionPoint, LinearPoint
from profiler.paged_attention import PagedAttentionPoint
from profiler.plain_models import PlainModelPoint
from profiler.static_attention import StaticAttentionPoint
from profiler.wholes import ForwardPoint, GeneratePoint, WholePoint, held_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model.architecture import Architecture

_T = TypeVar("_T")
_AnyAttention = TypeVar("_AnyAttention", bound=AttentionPoint)
_AnyModel = TypeVar("_AnyModel", bound=WholePoint)
_DIMENSIONS = 12
_POSITIONS = 8_192
_EXPERTS = ((8, 2), (16, 4), (32, 4), (64, 6), (128, 8), (16, 1))
"""Experts of a layer, and how many of them a token is sent to."""
_SMALL_MIXTURES = ((8, 2), (16, 2), (16, 4), (32, 4))
_BATCHES = (1, 4, 16, 64, 2, 8, 32, 128, 256)
"""Sequences that engines with continuous batching decode together; prompts come alone or few."""
_MANY_RANKS = 4
_SMALL_ROWS = (5, 6, 8, 12, 16)
"""Kernels switch within these: they are covered one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Ranges of the design; those with a default are a CPU's, where all campaigns share them.

    Attributes:
        hidden: narrowest and widest residual stream.
        ranks: tensor-parallel sizes whose shares are measured.
        vocab: smallest and largest vocabulary.
        kv_tokens: longest context.
        model_bytes: weights of a model that is built for ``generate()``.
        flops: most floating-point operations of a usual pass; few points take some times that.
        bytes: most bytes of one operation.
        whole_ranks: tensor-parallel sizes whose shares of whole layers are measured.
        rows: most of a projection; experts get half as many tokens.
        sequences: of an attention alone.
        latent_sequences: of a latent attention alone.
        contexts: shortest and longest in models' passes, decoding ones and chunks.
        batches: sequences that models decode together, one model after the other.
        mixture_batches: alike, of experts.
        decoding: alike, beside a chunk of a prompt.
        prompts: most tokens of a usual pass through a model, all sequences together, and of a long
            one.
        requests: tokens of the prompts that models generate from.
        held_bytes: most bytes, in 32 bits, of what passes and attentions hold of their contexts.
        patience: times the floating-point operations of a usual pass that few attentions take.
    """

    hidden: tuple[int, int]
    ranks: tuple[int, ...]
    vocab: tuple[int, int]
    kv_tokens: int
    model_bytes: tuple[float, float]
    flops: float
    bytes: float
    whole_ranks: tuple[int, ...] = (1,)
    rows: int = 4_096
    sequences: tuple[int, ...] = (1, 1, 2, 3, 4, 6, 8, 16)
    latent_sequences: tuple[int, ...] = (1, 1, 2, 4, 8)
    contexts: tuple[int, int] = (32, 1_024)
    batches: tuple[int, ...] = (1, 4, 2, 1, 8, 3)
    mixture_batches: tuple[int, ...] = (1, 4, 2, 8)
    decoding: tuple[int, ...] = (8, 3, 16, 1, 5)
    prompts: tuple[int, int] = (512, 2_048)
    requests: tuple[int, ...] = (64, 32, 256, 128, 16, 512)
    held_bytes: float = math.inf
    patience: float = 1.0


def space_of(
    *, is_cuda: bool, flops_per_second: float, cold_bytes: float, free_bytes: float
) -> Space:
    """Returns the design space that suits a device.

    Args:
        is_cuda: GPUs get the shapes of 1B to 405B models, the CPU those of 0.1B to 3B.
        flops_per_second: rate of a large matrix product.
        cold_bytes: a model must be larger to run from memory.
        free_bytes: memory that can be taken.
    """
    limit = 0.2 * free_bytes
    if is_cuda:
        return Space(
            hidden=(1024, 16384),
            ranks=(1, 2, 4, 8),
            vocab=(32_000, 256_000),
            kv_tokens=131_072,
            model_bytes=(min(4 * cold_bytes, limit), min(4e9, limit)),
            flops=0.05 * flops_per_second,
            bytes=min(8e9, limit),
            whole_ranks=(1, 2, 1, 8, 1, 4),
            rows=16_384,
            sequences=(1, 1, 2, 4, 8, 16, 32, 64),
            latent_sequences=(1, 4, 16, 64, 2, 8, 32),
            contexts=(32, _POSITIONS),
            batches=(1, 16, 4, 64, 8, 32),
            mixture_batches=(1, 16, 4, 64),
            decoding=(8, 32, 16, 1, 64),
            prompts=(2_048, _POSITIONS),
            requests=(64, 512, 256, 1_024, 16, 2_048),
            held_bytes=2 * limit,
            patience=4.0,
        )
    return Space(
        hidden=(320, 2560),
        ranks=(1, 1, 1, 2, 4),
        vocab=(8_000, 160_000),
        kv_tokens=4_096,
        model_bytes=(min(2.5 * cold_bytes, limit), min(5 * cold_bytes, limit)),
        flops=0.3 * flops_per_second,
        bytes=min(6e8, limit),
    )


class Design:
    """An endless sequence of points of each kind; equal seeds give equal points."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed

    def linears(self) -> Iterator[LinearPoint]:
        """Yields weight matrices, each with a few rows from one token to a long prompt.

        The largest head comes first: no other projection is as far from the rest.
        """
        widest = int(math.sqrt(self._space.hidden[0] * self._space.hidden[1])) // 64 * 64
        largest = min(self._space.vocab[1], int(self._space.bytes / 4 / widest))
        yield LinearPoint(largest // 64 * 64, widest, (1, 2, 4, 8, 16))
        for index, u in enumerate(_sobol(self._seed)):
            architecture = self.architecture(u, f"l{index}")
            n, k = self._projection(architecture, u)
            if 4 * n * k > self._space.bytes:
                n = max(64, int(self._space.bytes / 4 / k) // 64 * 64)
            longest = self._space.flops / (2 * n * k)
            rows = {1, 2, 3 + index % 2, _pick(_SMALL_ROWS, u[9])}
            rows.add(round(_log_between(16, 128, u[10])))
            rows.add(round(_log_between(128, self._space.rows, u[11])))
            rows = {max(1, min(m, int(longest))) for m in rows}
            transposed = index % 4 == 3
            kind = OperationKind.LINEAR_TRANSPOSED if transposed else OperationKind.LINEAR
            yield LinearPoint(n, k, tuple(sorted(rows)), kind)

    def linears_per_tensor(self) -> Iterator[LinearPoint]:
        """Yields the same, each with one scale for all of its weights: for fp8 alone."""
        return (replace(it, kind=OperationKind.LINEAR_PER_TENSOR) for it in self.linears())

    def attentions(self) -> Iterator[AttentionPoint]:
        """Yields attentions: half of them decode, a quarter whole prompts, a quarter chunks."""
        return self._attentions(AttentionPoint, self._seed + 1)

    def static_attentions(self) -> Iterator[StaticAttentionPoint]:
        """Yields the like over a static cache."""
        return self._attentions(StaticAttentionPoint, self._seed + 6)

    def paged_attentions(self) -> Iterator[PagedAttentionPoint]:
        """Yields the like over pages, of as many sequences as engines decode together."""
        for index, point in enumerate(self._attentions(PagedAttentionPoint, self._seed + 9)):
            if point.query_tokens > 1:
                yield point
                continue
            sequences = _BATCHES[index // 2 % len(_BATCHES)]
            # Keys and values in 32 bits, then the multiplications of usual passes.
            token_bytes = 8 * point.kv_heads * point.head_dim
            token_flops = 4 * point.query_heads * point.head_dim
            most = min(self._space.bytes / token_bytes, self._space.flops / token_flops)
            kv = max(16, min(point.kv_tokens, int(most / sequences)))
            yield replace(point, sequences=sequences, kv_tokens=kv)

    def _attentions(self, make: type[_AnyAttention], seed: int) -> Iterator[_AnyAttention]:
        for index, u in enumerate(_sobol(seed)):
            heads = self.architecture(u, f"a{index}").layers[0].layer.attention
            assert isinstance(heads, Attention)  # noqa: S101 - the design draws no other
            sequences = _pick(self._space.sequences, u[8])
            kv = round(_log_between(16, self._space.kv_tokens, u[9]))
            query = (1, kv, 1, max(1, round(_log_between(1, kv, u[10]))))[index % 4]
            # Beside a mask transformers holds keys and values for each query head; a point
            # rotates over two copies.
            held = heads.query_heads if 1 < query < kv else heads.kv_heads
            copies = self._space.held_bytes / (2 * 8 * kv * held * heads.head_dim)
            sequences = max(1, int(min(sequences, copies)))
            heads_width = heads.query_heads * heads.head_dim
            # Prompts and chunks over the longest contexts take long: one in four may.
            flops = (self._space.patience if index % 16 < 4 else 1.0) * self._space.flops
            most = flops / (4 * sequences * heads_width)
            if query * kv > most:
                scale = math.sqrt(most / (query * kv))
                query, kv = max(1, int(query * scale)), max(16, int(kv * scale))
            yield make(
                sequences, min(query, kv), kv, heads.query_heads, heads.kv_heads, heads.head_dim
            )

    def experts(self) -> Iterator[ExpertsPoint]:
        """Yields the experts of a rank, from one token to a prompt: many narrow ones, few wide.

        Every third rank holds some of the experts alone, at times more than its share of
        the load.
        """
        for index, u in enumerate(_sobol(self._seed + 3)):
            hidden = max(64, round(_log_between(*self._space.hidden, u[0]) / 64) * 64)
            count, top_k = _pick(_EXPERTS, u[1])
            inner = max(32, round(hidden * _log_between(0.2, 3.0, u[2]) / 32) * 32)
            ranks = (1, 1, _pick((2, 4, 8), u[3]))[index % 3]
            local = max(2, count // ranks)  # modules of one expert count other ranks' as its own
            # The design covers all of its experts in memory.
            widest = int(self._space.bytes / (12 * local * hidden)) // 32 * 32
            inner = max(32, min(inner, widest))
            longest = self._space.flops / (6 * hidden * inner * top_k * local / count)
            tokens = {1, 2, _pick(_SMALL_ROWS, u[4])}
            most = self._space.rows // 2
            tokens |= {round(_log_between(*bounds, u[5])) for bounds in ((16, 96), (96, most))}
            yield ExpertsPoint(
                hidden,
                inner,
                local,
                count,
                top_k,
                tuple(sorted({max(1, min(t, int(longest))) for t in tokens})),
                (1.0, round(1 + 0.5 * u[6], 2))[index % 2] if ranks > 1 else 1.0,
            )

    def latents(self) -> Iterator[LatentPoint | BatchedLinearPoint]:
        """Yields latent attentions, half of them decode, and the products that absorb queries."""
        for index, u in enumerate(_sobol(self._seed + 4)):
            head_dim = _pick((64, 128, 128, 96), u[0])
            heads = max(2, round(_log_between(*self._space.hidden, u[1]) / head_dim))
            rank, rope = _pick((128, 256, 512), u[2]), _pick((32, 64), u[3])
            if index % 4 == 3:
                # Into the latent's space, or out of it.
                n, k = ((rank, head_dim), (head_dim, rank))[index // 4 % 2]
                rows = {1, 2, _pick(_SMALL_ROWS, u[4]), round(_log_between(16, 128, u[5]))}
                yield BatchedLinearPoint(n, k, heads, tuple(sorted(rows)))
                continue
            sequences = _pick(self._space.latent_sequences, u[4])
            kv = round(_log_between(16, self._space.kv_tokens, u[5]))
            query = (1, kv, 1, 1, 1, max(2, round(_log_between(2, kv, u[6]))))[index % 6]
            width = 2 * head_dim + rope if query > 1 else 2 * rank + rope
            most = self._space.flops / (2 * sequences * heads * width)
            if query * kv > most:
                scale = most / kv if query == 1 else math.sqrt(most / (query * kv))
                query, kv = max(1, int(query * scale)), max(16, int(kv * scale))
            yield LatentPoint(sequences, min(query, kv), kv, heads, rank, rope, head_dim, head_dim)

    def mixtures(self) -> Iterator[ModelPoint]:
        """Yields small models of experts, every third with latent attention, all layers alike."""
        return self._mixtures(ModelPoint, "x", self._seed + 5)

    def plain_mixtures(self) -> Iterator[PlainModelPoint]:
        """Yields the like of plain layers."""
        return self._mixtures(PlainModelPoint, "y", self._seed + 8)

    def _mixtures(self, make: type[_AnyModel], letter: str, seed: int) -> Iterator[_AnyModel]:
        for index, u in enumerate(_sobol(seed)):
            name = f"{letter}{self._seed}-{index}"
            architecture = self._mixture(u, name, latent=index % 3 == 2)
            batch = _in_turn(self._space.mixture_batches, index)
            context = round(_log_between(*self._space.contexts, u[9]))
            tokens = round(_log_between(32, self._space.prompts[0], u[10]))
            together = batch if batch > 1 else 4
            forwards = (
                ForwardPoint(1, 1, context),
                ForwardPoint(together, 1, self._held(architecture, together, context)),
                self._within(architecture, ForwardPoint(1, tokens, tokens)),
            )
            prompt = self._within(architecture, ForwardPoint(batch, 64, 64))
            generates = (
                GeneratePoint(1, 32, 9),
                GeneratePoint(prompt.sequences, prompt.query_tokens, 7),
            )
            yield make(architecture, forwards, generates)

    def models(self) -> Iterator[ModelPoint]:
        """Yields small models with passes through their layers and ``generate()`` runs."""
        return self._models(ModelPoint, "m", self._seed + 2)

    def plain_models(self) -> Iterator[PlainModelPoint]:
        """Yields the like of plain layers, a chunk of a prompt beside decoding sequences too."""
        for index, point in enumerate(self._models(PlainModelPoint, "p", self._seed + 7)):
            chunk = point.forwards[-1]
            context = point.forwards[0].kv_tokens
            decoding = _in_turn(self._space.decoding, index)
            beside = self._held(point.architecture, decoding, context)
            mixed = replace(chunk, decoding=decoding, decoding_kv_tokens=beside)
            yield replace(point, forwards=(*point.forwards, mixed))

    def _models(self, make: type[_AnyModel], letter: str, seed: int) -> Iterator[_AnyModel]:
        for index, u in enumerate(_sobol(seed)):
            architecture = self.architecture(u, f"{letter}{self._seed}-{index}", whole=True)
            batch = _in_turn(self._space.batches, index)
            prompt = _in_turn(self._space.requests, index + index // 6)
            context = round(_log_between(*self._space.contexts, u[9]))
            # Long prompts take seconds: every third model has one.
            long_one = index % 3 == 1
            usual, longest = self._space.prompts
            tokens = round(_log_between(*((768, longest) if long_one else (64, usual)), u[10]))
            wide = (1, 4, 1, 2, 1, 2)[index % 6]
            together = batch if batch > 1 else 4
            forwards = (
                ForwardPoint(1, 1, context),
                ForwardPoint(together, 1, self._held(architecture, together, context)),
                self._within(
                    architecture,
                    ForwardPoint(wide, max(2, tokens // wide), max(2, tokens // wide)),
                    patience=4.0 if long_one else 1.0,
                ),
                self._within(architecture, ForwardPoint(1, max(2, context // 4), context)),
            )
            long = self._within(architecture, ForwardPoint(batch, prompt, prompt))
            generates = (
                GeneratePoint(1, 32, 9),
                GeneratePoint(long.sequences, long.query_tokens, 7),
            )
            yield make(architecture, forwards, generates)

    def architecture(self, u: Sequence[float], name: str, *, whole: bool = False) -> Architecture:
        """Returns the architecture at a point of the unit cube.

        Args:
            u: at least 8 numbers in 0 to 1.
            name: of the architecture.
            whole: as deep as ``model_bytes`` allows.
        """
        space = self._space
        head_dim = (64, 128, 64, 96, 128, 80)[int(u[0] * 6) % 6]
        low, high = space.hidden
        ranks = space.whole_ranks if whole else space.ranks
        rank = _pick(ranks, u[5])
        # Whole layers of the widest models are those of many ranks alone.
        widest = 0.6 * high if whole and rank < _MANY_RANKS else high
        hidden = _log_between(low, widest, u[1])
        query_heads = max(2, round(hidden / head_dim))
        if whole and rank > 1:  # each has as many heads
            fewest, most = math.ceil(low / head_dim / rank), int(high / head_dim / rank)
            query_heads = rank * min(max(fewest, round(query_heads / rank)), most)
        hidden = query_heads * head_dim
        divisors = [d for d in range(1, query_heads + 1) if query_heads % d == 0]
        kv_heads = divisors[int(u[2] * len(divisors)) % len(divisors)]
        inner = max(64, round(hidden * (2 + 4 * u[3]) / 64) * 64)
        vocab = round(_log_between(*space.vocab, u[4]) / 64) * 64
        rank = math.gcd(rank, query_heads)
        kind = int(u[6] * 4) % 4
        if whole:
            vocab = min(vocab, int(0.4 * space.model_bytes[1] / 4 / hidden) // 64 * 64)
        if whole and kind == 3 and rank == 1:
            return self._deepened(_like_gpt2(name, hidden, query_heads, inner, vocab), u)
        built = architecture_of_dimensions(
            name=name,
            hidden_size=hidden,
            layer_count=1,
            query_heads=query_heads // rank,
            kv_heads=max(1, kv_heads // rank)
            if (query_heads // rank) % max(1, kv_heads // rank) == 0
            else 1,
            head_dim=head_dim,
            intermediate_size=max(16, inner // rank),
            vocab_size=max(64, vocab // rank),
            tied_embeddings=True,
            qkv_bias=kind == 1,
            qk_norm=kind == 2,
        )
        return self._deepened(built, u) if whole else built

    def _mixture(self, u: Sequence[float], name: str, *, latent: bool) -> Architecture:
        """Returns a model of experts, as deep as ``model_bytes`` allows."""
        low, high = self._space.hidden
        head_dim = _pick((64, 128), u[0])
        query_heads = max(2, round(_log_between(low, max(low, 0.4 * high), u[1]) / head_dim))
        hidden = query_heads * head_dim
        count, top_k = _pick(_SMALL_MIXTURES, u[2])
        inner = max(32, round(hidden * _log_between(0.25, 1.0, u[3]) / 32) * 32)
        vocab = round(_log_between(*self._space.vocab, u[4]) / 64) * 64
        vocab = max(64, min(vocab, int(0.2 * self._space.model_bytes[1] / 4 / hidden) // 64 * 64))
        divisors = [d for d in range(1, query_heads + 1) if query_heads % d == 0]
        built = architecture_of_dimensions(
            name=name,
            hidden_size=hidden,
            layer_count=1,
            query_heads=query_heads,
            kv_heads=_pick(divisors, u[5]),
            head_dim=head_dim,
            intermediate_size=inner,
            vocab_size=vocab,
            qk_norm=not latent and u[6] < 0.5,
            experts=count,
            experts_per_token=top_k,
            expert_intermediate_size=inner,
            shared_intermediate_size=inner if latent else 0,
            kv_rank=_pick((128, 256), u[5]) if latent else 0,
            query_rank=hidden // 2 if latent else 0,
            rope_dim=32 if latent else 0,
            value_dim=head_dim if latent else 0,
        )
        return self._deepened(built, u)

    def _deepened(self, built: Architecture, u: Sequence[float]) -> Architecture:
        """Returns an architecture of one layer as deep as ``model_bytes`` allows."""
        hidden, vocab = built.hidden_size, built.vocab_size
        layer_bytes = 4 * built.layers[0].layer.parameter_count(hidden)
        target = _log_between(*self._space.model_bytes, u[7]) - 4 * vocab * hidden
        return _with_layers(built, max(2, min(40, round(target / layer_bytes))))

    def _projection(self, architecture: Architecture, u: Sequence[float]) -> tuple[int, int]:
        hidden, layer = architecture.hidden_size, architecture.layers[0].layer
        one = (Sequences(count=1, query_tokens=1, kv_tokens=1),)
        operations = layer_operations(hidden, layer, one, Precision.FP32, Precision.FP32)
        shapes = [(int(o.shape[1]), int(o.shape[2])) for o in operations if o.kind == "linear"]
        shapes.append((architecture.vocab_size, hidden))
        return shapes[int(u[8] * len(shapes)) % len(shapes)]

    def _held(self, architecture: Architecture, sequences: int, context: int) -> int:
        """Returns the context, shortened to what so many sequences may hold of it."""
        layer = architecture.layers[0].layer
        values = held_values(architecture.hidden_size, layer, architecture.layer_count)
        return int(min(context, max(16, self._space.held_bytes / (4 * sequences * values))))

    def _within(
        self, architecture: Architecture, point: ForwardPoint, patience: float = 1.0
    ) -> ForwardPoint:
        """Returns the pass, its query shortened to so many times the FLOPs of a usual pass."""
        a_token = 2 * architecture.active_parameters() * point.sequences
        query = max(1, min(point.query_tokens, int(patience * self._space.flops / a_token)))
        whole = point.query_tokens == point.kv_tokens
        return ForwardPoint(point.sequences, query, query if whole else point.kv_tokens)


def _like_gpt2(
    name: str, hidden_size: int, heads: int, intermediate_size: int, vocab_size: int
) -> Architecture:
    """Returns one layer of GPT-2's kind, which stores and fuses its projections its own way."""
    config = {
        "model_type": "gpt2",
        "n_embd": hidden_size,
        "n_layer": 1,
        "n_head": heads,
        "n_inner": intermediate_size,
        "vocab_size": vocab_size,
        "n_positions": _POSITIONS,
    }
    return architecture_from_config(config, name)


def _with_layers(architecture: Architecture, count: int) -> Architecture:
    (group,) = architecture.layers
    return replace(architecture, layers=(replace(group, count=count),))


def _sobol(seed: int) -> Iterator[list[float]]:
    # torch's: scipy.stats takes a second to load.
    engine = SobolEngine(_DIMENSIONS, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    while True:
        yield from engine.draw(64, dtype=torch.float64).tolist()


def _log_between(low: float, high: float, u: float) -> float:
    return float(low * (high / low) ** u)


def _in_turn(choices: Sequence[_T], index: int) -> _T:
    return choices[index % len(choices)]


def _pick(choices: Sequence[_T], u: float) -> _T:
    return choices[int(u * len(choices)) % len(choices)]
