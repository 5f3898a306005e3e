"""What the reader of a prediction should know; codes are stable names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.analytical import NODE_RANKS
from model.engines import engine as engine_of
from model.estimate import Provenance
from model.execution import projections_of
from model.operations import all_reduce, all_to_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model.composite import CompositeCostModel
    from model.memory import MemoryFootprint
    from model.operations import OperationKind
    from model.precision import Precision
    from model.steps import Question

NO_MEASUREMENTS = "NO_MEASUREMENTS"
_MANY_DISTURBED = 0.2
"""Of what is fitted on: of few such rows none is, of so many a whole kind."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A remark on an answer: a stable code, and what it means here with the remedy."""

    code: str
    text: str


def standing_notices(question: Question, cost_model: CompositeCostModel) -> Iterator[Notice]:
    """Yields what can be said before anything is priced."""
    sheet = cost_model.analytical.sheet
    yield from _source_notices(question, cost_model)
    if not cost_model.analytical.knows_rates:
        yield Notice(
            "DEVICE_RATES_ASSUMED",
            f"peak rates of {sheet.display_name or sheet.name} are not known;"
            " those of a common device of its kind are assumed",
        )
    precision = question.precision
    compute = sheet.compute_precision(precision)
    if compute is not precision.compute:
        yield Notice(
            "PRECISION_SUBSTITUTED",
            f"{sheet.name} has no {precision} multipliers: weights are held in {precision}"
            f" and multiplied in {compute}",
        )
    # Experts are spread over data-parallel ranks, too.
    routed = question.architecture.experts is not None
    tensor, data = question.parallelism.tensor, question.parallelism.data if routed else 1
    ranks = tensor * data
    exchanges = [all_reduce(1, tensor, precision)] if tensor > 1 else []
    exchanges += [all_to_all(1, ranks, precision)] if data > 1 else []
    if exchanges and not sheet.link_bytes_per_second and not cost_model.are_priced(exchanges):
        yield Notice(
            "LINK_ASSUMED",
            f"{sheet.name} has no link to peers on its data sheet; ranks are taken to talk over"
            f" {'PCIe' if sheet.kind == 'cuda' else 'memory'}",
        )
    if ranks > NODE_RANKS:
        yield Notice(
            "NETWORK_ASSUMED",
            f"{ranks} ranks that exchange activations are more than the {NODE_RANKS} that share"
            " a link; a network of 400 Gb/s a device is assumed",
        )
    if question.workload.concurrency and not engine_of(question.engine).continuous:
        yield Notice(
            "CONTINUOUS_BATCHING_ASSUMED",
            f"{question.engine} batches statically; a scheduler that lets requests join and"
            " leave its batch is assumed",
        )
    if projections_of(question.architecture, question.engine).expands_latents:
        yield Notice(
            "LATENTS_EXPANDED",
            f"{question.engine} expands the latents of the whole context in every pass; engines"
            " that absorb queries into them decode faster",
        )
    positions = question.architecture.learned_positions
    longest = question.workload.input_tokens + question.workload.output_tokens
    if 0 < positions < longest:
        yield Notice(
            "BEYOND_LEARNED_POSITIONS",
            f"{longest} tokens are more than the {positions} positions that the model has"
            " learned; it cannot run so",
        )


def outside_notice(names: frozenset[str], provenance: Provenance) -> Notice:
    """Returns the remark on operations outside the measured domain.

    Args:
        names: of the operations.
        provenance: whose measurements there are: it decides who can make more.
    """
    remedy = (
        "profile longer to cover them"
        if provenance is Provenance.MEASURED_LOCALLY
        else "import measurements that cover them, or calibrate with rows of your own"
    )
    return Notice(
        "OUTSIDE_MEASURED_DOMAIN",
        f"no measurement is near these sizes of {', '.join(sorted(names))}; the interval is"
        f" widened; {remedy}",
    )


def bounded_notice(names: frozenset[str]) -> Notice:
    """Returns the remark on operations that no kernel of the device can run so fast."""
    return Notice(
        "BOUND_BY_DEVICE",
        f"measurements tell of {', '.join(sorted(names))} faster than the device's data sheet"
        " allows; its bandwidth and peak rate count; are they of this device, and were these"
        " sizes measured with caches cold?",
    )


def unmeasured_notice(names: frozenset[str]) -> Notice:
    """Returns the remark on kernels of kinds that were never measured here."""
    return Notice(
        "OPERATION_NOT_MEASURED",
        f"{', '.join(sorted(names))}: operations of this kind were not measured on this device;"
        " physics fills in, with a wide interval",
    )


def leaning_notice(names: frozenset[str], lender: str) -> Notice:
    """Returns the remark on kernels of few points, and whose stand beside them.

    Args:
        names: of the operations.
        lender: name of the device that was measured in more.
    """
    return Notice(
        "KERNELS_LEAN_ON_OTHERS",
        f"few points like {', '.join(sorted(names))} were measured on this device: what was"
        f" measured on {lender}, which runs the same kernels, fills in between them; more points"
        " lean less",
    )


def foreign_notice(
    kinds: Sequence[tuple[OperationKind, Precision, tuple[str, ...]]], engine: str
) -> Notice:
    """Returns the remark on kernels that other engines ran where they were measured.

    Args:
        kinds: of the kernels, their precision, and the names of these engines.
        engine: that is asked about.
    """
    named = ", ".join(
        f"{kind} in {precision} ({' and '.join(others)})" for kind, precision, others in kinds
    )
    return Notice(
        "KERNELS_OF_OTHER_ENGINES",
        f"kernels of other engines stand in for those of {engine}, which were not measured:"
        f" {named}; its own may take longer or shorter; import measurements of them",
    )


def memory_notice(memory: MemoryFootprint, sequences: int, *, waiting: bool) -> Notice:
    """Returns the remark on a model or a batch that does not fit.

    Args:
        memory: what they need.
        sequences: that run together.
        waiting: whether requests come one by one, so that not even one of them fits.
    """
    needed, there = (
        f"{size / 1e9:,.0f}" if size >= 1e11 else f"{size / 1e9:.3g}"
        for size in (memory.total_bytes, memory.capacity_bytes)
    )
    if memory.weights_bytes > memory.capacity_bytes:
        short, remedy = ", too few for the weights", ""
    elif sequences > 1:
        short, remedy = "", ", fewer sequences"
    else:
        short, remedy = ", too few for one sequence", ", fewer tokens"
    return Notice(
        "DOES_NOT_FIT",
        f"{needed} GB are needed on one device and {there} GB are there{short}; the figures are"
        f" hypothetical{', of one request at a time' * waiting}; use more devices{remedy} or a"
        " smaller precision",
    )


def saturated_notice(asked: int, slots: int, *, cap: bool) -> Notice:
    """Returns the remark on a load beyond capacity.

    Args:
        asked: requests in flight on one data-parallel rank.
        slots: of which so many run together.
        cap: whether the batch size limits them; else the KV cache does.
    """
    limit, remedy = (
        ("the batch size", "a larger one lets more run")
        if cap
        else ("memory for the KV cache", "more devices or a smaller precision make room")
    )
    return Notice(
        "SATURATED",
        f"{asked} requests are in flight on a replica and {limit} lets {slots} run together;"
        f" the others wait, which TTFT holds; {remedy}",
    )


def _source_notices(question: Question, cost_model: CompositeCostModel) -> Iterator[Notice]:
    if cost_model.fitted is None:
        yield Notice(
            NO_MEASUREMENTS,
            "nothing was measured on this device: figures come from physics and data sheet"
            " alone, with a wide interval; a profile job on the device narrows it",
        )
    elif cost_model.fitted.disturbed > _MANY_DISTURBED:
        yield Notice(
            "MEASURED_UNDER_LOAD",
            f"other processes or heat slowed down {cost_model.fitted.disturbed:.0%} of the"
            " measurements on this device: profile it again while nothing else runs",
        )
    if cost_model.fitted is not None and not cost_model.holds_precision:
        yield Notice(
            "PRECISION_NOT_MEASURED",
            f"{question.precision} with a KV cache in {question.kv_precision} was not measured"
            " on this device: physics fills in, with a wide interval",
        )
    coefficients = engine_of(question.engine)
    on_gpu = cost_model.analytical.sheet.kind == "cuda"
    if not cost_model.holds_engine and on_gpu and coefficients.fitted_on:
        yield Notice(
            "ENGINE_FITTED_ELSEWHERE",
            f"overheads of {question.engine} are those of {coefficients.fitted_on}; another"
            " version or device may have others",
        )
    elif not cost_model.holds_engine:
        yield Notice(
            "ENGINE_NOT_FITTED",
            f"overheads of {question.engine} were not fitted on this device; round figures are"
            " assumed",
        )
    parallelism = question.parallelism
    routed = question.architecture.experts is not None
    ranks = max(parallelism.tensor, parallelism.pipeline, parallelism.data if routed else 1)
    if cost_model.fitted is not None and ranks > 1 and not cost_model.holds_communication:
        yield Notice(
            "COMMUNICATION_NOT_MEASURED",
            "what ranks send each other was not measured; it is priced by the link's data sheet",
        )
