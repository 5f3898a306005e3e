"""From operations to what a user asks: TTFT, TPOT, request latency, throughput, memory.

Static batching (``batch_size`` alone): the sequences of a replica are prefilled, then
decoded, together.

Continuous batching (``concurrency``): a closed loop with so many requests in flight, of
which R run together on a replica. While one request generates its ``n`` tokens each of
the other R - 1 brings one prefill, so that (R - 1) / n prefills are stolen from every
decode step, and as many are ahead of a new request: TPOT = decode step + i (R - 1) / n x
prefill, TTFT = prefill + i (R - 1) / n x prefill + half a decode step until the next batch
is made up. What a request costs the host is in its own TTFT alone. With i = 1 that
conserves work: TTFT + (n - 1) x TPOT is what R prefills and the decode steps take. An
engine's ``interference`` i is less where prefills run beside decodes, which leave
multipliers idle; no more of them is hidden than the decode step lasts. Its ``queueing`` q
adds q (R - 1) x prefill to TTFT, for requests arrive in bursts. With chunked prefill the
chunks run in mixed steps, and what they add to a decode step is the work that is stolen:
the difference of two measured steps where that is much, what physics says of it where it is
within the error of either.
Requests beyond R wait: with C in flight and R running a request takes C / R times as long,
and all of the wait is in TTFT. R is what memory has room for; where it has none for a single
request, the figures are those of one at a time, and hypothetical.

Ends of intervals are combined with each other: the errors of the phases are taken as
fully correlated. Under load TTFT depends on how requests arrive, too, and its interval is
wider by what that has been seen to make.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model.estimate import factor_at
from model.memory import (
    MemoryFootprint,
    activations_bytes,
    kv_cache_bytes_per_sequence,
    weights_bytes,
)
from model.notices import (
    Notice,
    bounded_notice,
    foreign_notice,
    leaning_notice,
    memory_notice,
    outside_notice,
    saturated_notice,
    standing_notices,
    unmeasured_notice,
)
from model.steps import Estimate, PhaseCost, PhaseWork, Question, StepPlanner, chunk_count

if TYPE_CHECKING:
    from model.composite import CompositeCostModel
    from model.estimate import Phase, Provenance


_QUEUEING_FACTOR = 1.6
"""By what factor either end of a loaded TTFT's 90% interval is moved."""
_MUCH = 0.3
"""Share of a mixed step that a chunk adds, from which on a difference of fitted steps tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCost:
    """One row of a breakdown; fields as in the API's message."""

    phase: Phase
    name: str
    kind: str
    count: int
    latency_ms: float
    flops: float
    bytes: float
    share: float
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A prediction; fields as in the API's ``PredictResponse``."""

    ttft_ms: Estimate
    tpot_ms: Estimate | None
    request_latency_ms: Estimate
    tokens_per_second: Estimate | None
    tokens_per_second_per_gpu: Estimate | None
    memory: MemoryFootprint
    breakdown: tuple[OperationCost, ...]
    provenance: Provenance
    notices: tuple[Notice, ...]


def predict(
    question: Question, cost_model: CompositeCostModel, *, with_breakdown: bool = False
) -> Inference:
    """Answers a question.

    Args:
        question: what is asked; its parallelism fits its architecture.
        cost_model: of the device, for the question's precisions and engine.
        with_breakdown: whether to list the cost of each operation.
    """
    workload = question.workload
    notices = list(standing_notices(question, cost_model))
    together = slots = _together(question)
    memory = footprint(question, cost_model, together)
    if workload.concurrency and memory.fits is False:
        slots = _slots(question, cost_model, together)
        memory = footprint(question, cost_model, slots)
    if memory.fits is False:
        notices.append(memory_notice(memory, slots, waiting=workload.concurrency > 0))
    if workload.concurrency:
        asked = -(-workload.concurrency // question.parallelism.data)
        # Where not even one fits, that is all there is to say.
        if asked > slots and memory.fits is not False:
            notices.append(saturated_notice(asked, slots, cap=slots == together))
        phases, ttft, tpot = _continuous(question, cost_model, slots, asked / slots)
    else:
        phases, ttft, tpot = _static(question, cost_model, together)
    latency = _request_latency(question, ttft, tpot)
    throughput = _throughput(question, latency)
    outside = frozenset(name for phase in phases for name in phase.estimate.outside)
    if outside and cost_model.fitted is not None:
        notices.append(outside_notice(outside, cost_model.fitted.provenance))
    if bounded := frozenset(name for phase in phases for name in phase.estimate.bounded):
        notices.append(bounded_notice(bounded))
    operations = [o for phase in phases for o in phase.work.operations]
    if unmeasured := cost_model.unmeasured(operations):
        notices.append(unmeasured_notice(unmeasured))
    if cost_model.fitted is not None and (leaning := cost_model.leaning(operations)):
        notices.append(leaning_notice(leaning, cost_model.fitted.lender))
    if foreign := cost_model.foreign(operations):
        notices.append(foreign_notice(foreign, question.engine))
    return Inference(
        ttft_ms=ttft,
        tpot_ms=tpot,
        request_latency_ms=latency,
        tokens_per_second=throughput,
        tokens_per_second_per_gpu=_per_device(question, throughput),
        memory=memory,
        breakdown=_breakdown(phases, cost_model) if with_breakdown else (),
        provenance=cost_model.provenance_of(operations),
        notices=tuple(notices),
    )


def with_latencies(
    inference: Inference,
    question: Question,
    ttft: Estimate,
    tpot: Estimate | None,
    notices: tuple[Notice, ...],
) -> Inference:
    """Returns an answer with other latencies, and what follows from them.

    Args:
        inference: the answer.
        question: what was asked.
        ttft: in milliseconds; the breakdown stays that of the first answer.
        tpot: likewise; None where there was none.
        notices: remarks to add.
    """
    latency = _request_latency(question, ttft, tpot)
    throughput = _throughput(question, latency)
    return replace(
        inference,
        ttft_ms=ttft,
        tpot_ms=tpot,
        request_latency_ms=latency,
        tokens_per_second=throughput,
        tokens_per_second_per_gpu=_per_device(question, throughput),
        notices=(*inference.notices, *notices),
    )


def footprint(
    question: Question, cost_model: CompositeCostModel, sequences: int
) -> MemoryFootprint:
    """Returns what ``sequences`` on one replica need on its fullest device.

    A static batch is at full length in the end. Requests that join and leave are at all
    stages of their lives, and engines admit them as long as pages of the cache are free:
    their mean length counts.
    """
    workload, parallelism = question.workload, question.parallelism
    generated = workload.output_tokens
    length = workload.input_tokens + (generated // 2 if workload.concurrency else generated)
    new = workload.input_tokens - workload.cached_prefix_tokens
    prompts = 1 if workload.concurrency else sequences
    tokens = min(prompts * new, workload.prefill_chunk_tokens or prompts * new)
    if workload.concurrency:
        tokens += sequences
    return MemoryFootprint(
        weights_bytes=weights_bytes(
            question.architecture, parallelism, question.precision, question.stored_experts
        ),
        kv_cache_bytes=sequences
        * kv_cache_bytes_per_sequence(
            question.architecture, parallelism, question.kv_precision, length
        ),
        activations_bytes=activations_bytes(
            question.architecture, parallelism, question.precision, tokens, sequences
        ),
        capacity_bytes=cost_model.analytical.sheet.memory_bytes,
    )


def _together(question: Question) -> int:
    """Returns the sequences that the fullest replica would run together, memory aside."""
    workload, data = question.workload, question.parallelism.data
    cap = -(-workload.batch_size // data)
    if not workload.concurrency:
        return max(1, cap)
    asked = -(-workload.concurrency // data)
    return min(asked, cap) if cap else asked


def _slots(question: Question, cost_model: CompositeCostModel, together: int) -> int:
    """Returns how many of the sequences fit in memory, at least 1."""
    low, high = 1, together  # high does not fit
    while high - low > 1:
        middle = (low + high) // 2
        if footprint(question, cost_model, middle).fits:
            low = middle
        else:
            high = middle
    return low


def _static(
    question: Question, cost_model: CompositeCostModel, together: int
) -> tuple[list[PhaseCost], Estimate, Estimate | None]:
    planner = StepPlanner(question)
    filled = max(1, question.workload.batch_size) / (together * question.parallelism.data)
    works = [planner.prefill(together, filled)]
    if question.workload.output_tokens > 1:
        works.append(planner.decode(together))
    phases = _priced(works, question, cost_model)
    return phases, phases[0].milliseconds, phases[1].milliseconds if len(phases) > 1 else None


def _continuous(
    question: Question, cost_model: CompositeCostModel, running: int, load: float
) -> tuple[list[PhaseCost], Estimate, Estimate | None]:
    """Returns the phases, TTFT and TPOT of ``running`` requests, ``load`` times as many waiting."""
    workload = question.workload
    generated = max(1, workload.output_tokens)
    decodes = workload.output_tokens > 1
    mixed = bool(workload.prefill_chunk_tokens) and decodes and running > 1
    planner = StepPlanner(question)
    works = [planner.mixed_prefill(running - 1) if mixed else planner.prefill(1)]
    if decodes:
        works.append(planner.decode(running))
    phases = _priced(works, question, cost_model)
    engine = cost_model.analytical.engine
    chunks = chunk_count(workload) if mixed else 0
    device_share = 1.0 - phases[0].request_share
    physics = _added_by_physics(works, question, cost_model, chunks) if mixed else 1.0
    trust = min(1.0, physics / _MUCH)

    def compose(prefill_ms: float, decode_ms: float) -> tuple[float, float]:
        # Of a pipeline one prefill occupies a stage at a time.
        passes = device_share * prefill_ms
        added = _added_share(passes, decode_ms, chunks)
        work = passes * max(0.0, trust * added + (1.0 - trust) * physics) / planner.stages
        share = (running - 1) / generated * work
        # A prefill hides behind decodes, and behind no more of them than there are.
        stolen = max(engine.interference * share, share - decode_ms)
        waiting = engine.queueing * (running - 1) * work
        ttft = prefill_ms + stolen + waiting + (decode_ms / 2 if running > 1 else 0.0)
        tpot = decode_ms + stolen
        latency = ttft + (workload.output_tokens - 1) * tpot if decodes else ttft
        return ttft + (load - 1.0) * latency, tpot

    decode = phases[1].milliseconds if decodes else Estimate(0.0, 0.0, 0.0)
    pairs = zip(phases[0].milliseconds, decode, strict=True)
    ttfts, tpots = zip(*(compose(*pair) for pair in pairs), strict=True)
    ttft = _ordered(*ttfts)
    if running > 1 or load > 1.0:
        ttft = _loaded(ttft, question.confidence)
    return phases, ttft, _ordered(*tpots) if decodes else None


def _added_by_physics(
    works: list[PhaseWork], question: Question, cost_model: CompositeCostModel, chunks: int
) -> float:
    """Returns what :func:`_added_share` is by the data sheet, 0 at the least."""
    analytical, confidence = cost_model.analytical, question.confidence
    mixed, decode = (
        PhaseCost(work=w, estimate=analytical.estimate(w.operations, w.phase, confidence))
        for w in works
    )
    passes = (1.0 - mixed.request_share) * mixed.milliseconds.value
    return max(0.0, _added_share(passes, decode.milliseconds.value, chunks))


def _added_share(passes_ms: float, decode_ms: float, chunks: int) -> float:
    """Returns what chunks add to the decode steps that they run in, as a share of the passes."""
    return 1.0 - chunks * decode_ms / max(passes_ms, 1e-12)


def _priced(
    works: list[PhaseWork], question: Question, cost_model: CompositeCostModel
) -> list[PhaseCost]:
    """Prices all phases at once: a fitted cost model answers two for little more than one."""
    parts = [(work.operations, work.phase) for work in works]
    estimates = cost_model.estimate_phases(parts, question.confidence)
    return [PhaseCost(work=w, estimate=e) for w, e in zip(works, estimates, strict=True)]


def _loaded(ttft: Estimate, confidence: float) -> Estimate:
    """Returns a TTFT with what queueing adds to its interval.

    How requests arrive is not asked: of deployments on H100 and H200 whose architecture was
    left out, an interval without this held 73 of 100 (``evaluation/deployments.py``).
    """
    factor = factor_at(confidence, _QUEUEING_FACTOR)
    return Estimate(ttft.value, ttft.lower / factor, ttft.upper * factor)


def _ordered(value: float, lower: float, upper: float) -> Estimate:
    """Returns the estimate; a difference of two phases may have crossed its ends."""
    return Estimate(value, min(value, lower), max(value, upper))


def _request_latency(question: Question, ttft: Estimate, tpot: Estimate | None) -> Estimate:
    if tpot is None:
        return ttft
    steps = question.workload.output_tokens - 1
    return Estimate(*(first + steps * each for first, each in zip(ttft, tpot, strict=True)))


def _per_device(question: Question, throughput: Estimate | None) -> Estimate | None:
    devices = question.parallelism.devices
    return throughput and Estimate(*(value / devices for value in throughput))


def _throughput(question: Question, latency: Estimate) -> Estimate | None:
    """Returns the generated tokens of the whole deployment over wall time."""
    workload = question.workload
    requests = workload.concurrency or max(1, workload.batch_size)
    tokens = requests * workload.output_tokens * 1e3
    if not tokens:
        return None
    return Estimate(tokens / latency.value, tokens / latency.upper, tokens / latency.lower)


def _breakdown(
    phases: list[PhaseCost], cost_model: CompositeCostModel
) -> tuple[OperationCost, ...]:
    rows = []
    for phase in phases:
        total = phase.milliseconds.value
        work = phase.work
        for operation, latency in zip(work.operations, phase.operations_ms, strict=True):
            rows.append(
                OperationCost(
                    phase=work.phase,
                    name=operation.name,
                    kind=operation.kind.value,
                    count=operation.count,
                    latency_ms=latency,
                    flops=operation.flops * operation.count,
                    bytes=operation.bytes * operation.count,
                    share=latency / total if total else 0.0,
                    bound=cost_model.analytical.bound(operation),
                )
            )
    return tuple(rows)
