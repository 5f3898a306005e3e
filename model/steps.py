"""Lists the forward passes of a request: prefill in one step or in chunks, decode, mixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from model.engines import engine as engine_of
from model.estimate import Phase
from model.execution import step_operations
from model.operations import OperationKind
from model.workload import Sequences

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model.architecture import Architecture
    from model.estimate import StepEstimate
    from model.operations import Operation
    from model.precision import PackedFormat, Precision
    from model.workload import Parallelism, Step, Workload

_MAX_CHUNK_SAMPLES = 12
"""Chunks of one prompt that are priced; more of them stand for their neighbours."""


class Estimate(NamedTuple):
    """A figure with its interval."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be predicted, nothing left open.

    Attributes:
        architecture: the model.
        workload: what is asked of it.
        parallelism: how it is spread; fits the architecture.
        precision: of weights and activations.
        kv_precision: of the KV cache.
        engine: name of an engine in ``model.engines``.
        stored_experts: format of the routed experts' weights; None is ``precision``.
        confidence: probability that intervals hold, 0.5 to 0.999.
    """

    architecture: Architecture
    workload: Workload
    parallelism: Parallelism
    precision: Precision
    kv_precision: Precision
    engine: str
    stored_experts: PackedFormat | None = None
    confidence: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWork:
    """What one phase executes.

    Attributes:
        phase: prefill or decode.
        operations: of all its steps; equal ones are one row.
        overlap: share of their latency left where pipeline stages work at one time.
    """

    phase: Phase
    operations: list[Operation]
    overlap: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """What one phase costs.

    Attributes:
        work: what it executes.
        estimate: latency of that, one after the other on each device in turn.
    """

    work: PhaseWork
    estimate: StepEstimate

    @property
    def operations_ms(self) -> tuple[float, ...]:
        """What each operation adds to the phase: stages overlap, a request's own cost does not."""
        pairs = zip(self.work.operations, self.estimate.operations_ms, strict=True)
        return tuple(
            ms if operation.kind is OperationKind.REQUEST_OVERHEAD else ms * self.work.overlap
            for operation, ms in pairs
        )

    @property
    def request_share(self) -> float:
        """Share of what new requests cost the host, which holds up no other request."""
        pairs = zip(self.work.operations, self.operations_ms, strict=True)
        request = sum(ms for o, ms in pairs if o.kind is OperationKind.REQUEST_OVERHEAD)
        return request / max(self.milliseconds.value, 1e-12)

    @property
    def milliseconds(self) -> Estimate:
        """Latency of the phase."""
        found = self.estimate
        if self.work.overlap == 1.0:
            return Estimate(found.value_ms, found.lower_ms, found.upper_ms)
        share = sum(self.operations_ms) / max(found.value_ms, 1e-12)
        return Estimate(found.value_ms * share, found.lower_ms * share, found.upper_ms * share)


class StepPlanner:
    """Lists the steps that one data-parallel rank runs for a question.

    With pipeline stages an engine that microbatches splits the sequences into as many
    groups as there are stages, each at another stage. A decode step then takes as long
    as one group needs to pass all stages; ``n`` equal passes of a prefill take
    ``(n + stages - 1) / stages`` of one pass. Other engines send the whole batch through
    one stage after the other.

    Args:
        question: what is asked.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        pipeline = question.parallelism.pipeline
        self.stages = pipeline if engine_of(question.engine).microbatches else 1

    def decode(self, sequences: int) -> PhaseWork:
        """Returns the decode step of ``sequences`` at the mean context (input + output / 2)."""
        workload = self._question.workload
        context = workload.input_tokens + workload.output_tokens // 2
        group = -(-sequences // min(self.stages, sequences))
        step = (Sequences(count=group, query_tokens=1, kv_tokens=context),)
        return self._work(Phase.DECODE, [(step, 1)], first=False)

    def prefill(self, sequences: int, filled: float = 1.0) -> PhaseWork:
        """Returns the prefill of ``sequences`` that arrive together, from the cached prefix on.

        Args:
            sequences: of the fullest data-parallel rank.
            filled: those of all ranks over what there were if each had as many. Decode steps
                are padded to the fullest rank's, as graphs are captured for it; prompts are not.
        """
        workload = self._question.workload
        new = workload.input_tokens - workload.cached_prefix_tokens
        limit = workload.prefill_chunk_tokens or sequences * new
        if limit < new:
            steps = [(step, times * sequences) for step, times in _chunks(workload, limit)]
        elif limit < sequences * new:
            steps = list(_groups(sequences, limit // new, new, workload.input_tokens))
        else:
            groups = min(self.stages, sequences)
            fullest = -(-sequences // groups)
            steps = [(_prompts(fullest, new, workload.input_tokens), groups)]
        passes = sum(times for _, times in steps)
        return self._work(Phase.PREFILL, steps, first=True, passes=passes, filled=filled)

    def mixed_prefill(self, decoding: int) -> PhaseWork:
        """Returns a prompt's prefill in chunks, each in one step with ``decoding`` sequences."""
        workload = self._question.workload
        new = workload.input_tokens - workload.cached_prefix_tokens
        context = workload.input_tokens + workload.output_tokens // 2
        limit = min(workload.prefill_chunk_tokens or new, new)
        group = -(-decoding // min(self.stages, decoding))
        others = (Sequences(count=group, query_tokens=1, kv_tokens=context),)
        steps = [(chunk + others, n) for chunk, n in _chunks(workload, limit)]
        return self._work(Phase.PREFILL, steps, first=True)

    def _work(
        self,
        phase: Phase,
        steps: list[tuple[Step, int]],
        *,
        first: bool,
        passes: int = 1,
        filled: float = 1.0,
    ) -> PhaseWork:
        question = self._question
        lists = [
            (
                step_operations(
                    question.architecture,
                    step,
                    question.parallelism,
                    question.precision,
                    question.kv_precision,
                    question.engine,
                    first=first and index == 0,
                    imbalance=question.workload.expert_imbalance,
                    filled=filled,
                    stored_experts=question.stored_experts,
                ),
                count,
            )
            for index, (step, count) in enumerate(steps)
        ]
        operations = lists[0][0] if len(lists) == 1 and lists[0][1] == 1 else _merged(lists)
        return PhaseWork(
            phase=phase,
            operations=operations,
            overlap=(passes + self.stages - 1) / (passes * self.stages),
        )


def chunk_count(workload: Workload) -> int:
    """Returns the steps that one prompt's prefill takes."""
    new = workload.input_tokens - workload.cached_prefix_tokens
    return -(-new // (workload.prefill_chunk_tokens or new))


def _groups(
    sequences: int, together: int, new: int, input_tokens: int
) -> Iterator[tuple[Step, int]]:
    """Yields steps of ``together`` whole prompts each, and one of what is left over."""
    whole, left = divmod(sequences, together)
    for count, times in ((together, whole), (left, 1)):
        if count:
            yield _prompts(count, new, input_tokens), times


def _prompts(count: int, new: int, input_tokens: int) -> Step:
    return (Sequences(count=count, query_tokens=new, kv_tokens=input_tokens),)


def _chunks(workload: Workload, limit: int) -> Iterator[tuple[Step, int]]:
    """Yields the chunks of a prompt over growing context, neighbours as one."""
    cached = workload.cached_prefix_tokens
    whole, left = divmod(workload.input_tokens - cached, limit)
    samples = min(whole, _MAX_CHUNK_SAMPLES)
    for index in range(samples):
        begin, end = index * whole // samples, (index + 1) * whole // samples
        middle = cached + (begin + end + 1) * limit // 2
        yield _prompts(1, limit, middle), end - begin
    if left:
        yield _prompts(1, left, workload.input_tokens), 1


def _merged(lists: list[tuple[list[Operation], int]]) -> list[Operation]:
    """Returns the operations of many steps; equal ones are priced once."""
    found: dict[tuple[object, ...], Operation] = {}
    for operations, times in lists:
        for o in operations:
            # A request's overhead comes once, however often its first step stands for others.
            count = o.count * (times if o.shape else 1)
            # Windowed and full attention may agree in shape and differ in FLOPs.
            key = (o.kind, o.name, o.precision, o.shape, o.flops)
            known = found.get(key)
            found[key] = o._replace(count=count + (known.count if known else 0))
    return list(found.values())
