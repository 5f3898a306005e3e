"""What a Measure call asks for, and whether this machine can do it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model.blocks import Attention, LatentAttention
from model.errors import InvalidFieldError
from model.memory import activations_bytes, kv_cache_bytes_per_sequence, weights_bytes
from profiler.interface import ENGINE, PLAIN_ENGINE, Scope
from profiler.plain_limits import check_plain
from server.errors import failed_precondition, unimplemented
from server.job_messages import seconds_of
from server.occupancy import FORCE_REMEDY
from server.rank_devices import ranks_of
from tokenpace.v1 import profiler_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from model.architecture import Architecture
    from model.blocks import AnyAttention
    from model.steps import Question
    from server.devices import Device, DeviceRegistry
    from server.errors import ServiceError
    from server.occupancy import Occupancy
    from server.predictor import Predictor, Resolution
    from server.rank_devices import Ranks

DEFAULT_BUDGET_S = 30.0
MIN_BUDGET_S = 0.001
MAX_BUDGET_S = 3_600.0
ENGINES = (ENGINE, PLAIN_ENGINE)
MEMORY_SHARE = 0.8
"""Of the free memory, that a live measurement may need."""

_SCOPES: dict[int, Scope] = {
    profiler_pb2.MEASURE_SCOPE_UNSPECIFIED: Scope.LAYER,
    profiler_pb2.MEASURE_SCOPE_LAYER: Scope.LAYER,
    profiler_pb2.MEASURE_SCOPE_MODEL: Scope.MODEL,
}
_MIN_LAYERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePlan:
    """A live measurement that can be made.

    Attributes:
        resolution: what the request came to mean.
        scope: how much of the model runs.
        budget_s: seconds from when it has the device.
        ranks: on which devices.
        trace: whether one more run is traced.
        torch_compile: whether the plain layers are compiled first.
        force: whether it goes on beside other processes.
    """

    resolution: Resolution
    scope: Scope
    budget_s: float
    ranks: Ranks
    trace: bool = False
    torch_compile: bool = False
    force: bool = False

    @property
    def device(self) -> Device:
        """Device that it runs on."""
        return self.resolution.device

    @property
    def needed_bytes(self) -> float:
        """Memory that it takes on each device."""
        question = self.resolution.question
        architecture = question.architecture
        if self.scope is Scope.LAYER:
            architecture = _few_layers(question, self.device.sheet.last_level_cache_bytes)
        workload, parallelism = question.workload, question.parallelism
        sequences = max(1, workload.batch_size)
        tokens = sequences * workload.input_tokens
        length = workload.input_tokens + workload.output_tokens
        ranks, whole = self.ranks.on_one, 0.0
        if len(self.ranks.devices) > 1:
            # Each has the whole embedding, of which a serving engine's has a share.
            table = architecture.vocab_size * architecture.hidden_size
            whole = table * (1 - 1 / parallelism.tensor) * question.precision.activation_bytes
        return ranks * (
            whole
            + weights_bytes(architecture, parallelism, question.precision)
            + sequences
            * kv_cache_bytes_per_sequence(architecture, parallelism, question.kv_precision, length)
            + activations_bytes(architecture, parallelism, question.precision, tokens, sequences)
        )


def live_plan(
    request: profiler_pb2.MeasureRequest, devices: DeviceRegistry, predictor: Predictor
) -> LivePlan:
    """Returns what a request asks for.

    Raises:
        ServiceError: NOT_FOUND (preset, device), FAILED_PRECONDITION (the device is
            not here, or its memory is too small) or UNIMPLEMENTED (what cannot be
            measured yet).
        InvalidFieldError: a field cannot be used; names it.
    """
    device = devices.get_local(request.device)
    if request.scope not in _SCOPES:
        raise InvalidFieldError(
            "scope", f"{request.scope} is no value of this enum; the highest is {max(_SCOPES)}"
        )
    budget_s = DEFAULT_BUDGET_S
    if request.HasField("budget"):
        budget_s = seconds_of(request.budget, "budget", MIN_BUDGET_S, MAX_BUDGET_S)
    resolution = predictor.resolve(request)
    _check_measurable(resolution.question)
    if request.torch_compile and resolution.question.engine != PLAIN_ENGINE:
        raise InvalidFieldError(
            "torch_compile",
            f"the modules of engine {resolution.question.engine} run eagerly; use engine"
            f" {PLAIN_ENGINE}, or leave it out",
        )
    question = resolution.question
    ranks = ranks_of(device, question.parallelism.tensor, devices)
    plan = LivePlan(
        resolution=resolution,
        scope=_SCOPES[request.scope],
        budget_s=budget_s,
        ranks=ranks,
        trace=request.trace,
        torch_compile=request.torch_compile,
        force=request.force,
    )
    if capacity := device.sheet.memory_bytes:
        _check_memory(plan, capacity, f"of the {capacity} bytes of {device.name}")
    return plan


def check_devices(
    plan: LivePlan, occupancy: Occupancy, beside_ours: Callable[[Device], bool]
) -> None:
    """Checks that the devices are as free as a live measurement needs them.

    Args:
        plan: whose devices are held.
        occupancy: of the devices.
        beside_ours: tells whether a worker of ours is on one already: a campaign's that pauses.

    Raises:
        ServiceError: FAILED_PRECONDITION, the memory of one is taken, or another process
            computes on it and the plan is not forced.
    """
    for device in plan.ranks.each.values():
        state = occupancy.note_and_check(
            device,
            FORCE_REMEDY,
            beside_ours=beside_ours(device),
            force=plan.force,
        )
        if state is not None:
            free = state.memory_total_bytes - state.memory_used_bytes
            _check_memory(plan, free, f"of the {free} bytes that are free on {device.name}")


def out_of_memory(plan: LivePlan, message: str) -> ServiceError:
    """Returns the error of a live measurement that did not fit."""
    needed = {"needed_bytes": str(math.ceil(plan.needed_bytes))}
    return failed_precondition("NOT_ENOUGH_MEMORY", plan.device.name, message, needed)


def _check_memory(plan: LivePlan, available: int, of_what: str) -> None:
    needed = math.ceil(plan.needed_bytes)
    if needed > MEMORY_SHARE * available:
        raise failed_precondition(
            "NOT_ENOUGH_MEMORY",
            plan.device.name,
            f"{needed} bytes are needed, over {MEMORY_SHARE:.0%} {of_what}; ask for a smaller"
            " batch, a shorter prompt, a smaller model, or for scope MEASURE_SCOPE_LAYER",
            {"needed_bytes": str(needed), "free_bytes": str(available)},
        )


def _check_measurable(question: Question) -> None:
    parallelism = question.parallelism
    if question.engine not in ENGINES:
        raise unimplemented(
            "ENGINE_NOT_MEASURED",
            f"engine: {question.engine} cannot be measured; use {' or '.join(ENGINES)}, or Predict",
        )
    architecture = question.architecture
    if not all(_has_modules(group.layer.attention) for group in architecture.layers):
        raise unimplemented(
            "ARCHITECTURE_NOT_MEASURED",
            "model: sparse, linear and gated attention cannot be measured yet; use a model"
            " without, or Predict",
        )
    if question.engine == PLAIN_ENGINE:
        try:
            check_plain(architecture)
        except InvalidFieldError as error:
            raise unimplemented("ARCHITECTURE_NOT_MEASURED", str(error)) from error
    if architecture.experts is not None and question.precision.activation is not question.precision:
        raise unimplemented(
            "ARCHITECTURE_NOT_MEASURED",
            f"precision: experts in {question.precision} cannot be measured yet; use fp32 or bf16,"
            " or Predict",
        )
    if question.workload.concurrency:
        raise unimplemented(
            "CONCURRENCY_NOT_MEASURED",
            "workload.concurrency: continuous batching cannot be measured yet; measure static"
            " batching with batch_size, or use Predict",
        )
    for name in ("cached_prefix_tokens", "prefill_chunk_tokens"):
        if getattr(question.workload, name):
            raise unimplemented(
                "PREFIX_AND_CHUNKS_NOT_MEASURED",
                f"workload.{name}: whole prompts alone can be measured yet; leave it out, or use"
                " Predict",
            )
    for name in ("pipeline", "data", "expert"):
        if getattr(parallelism, name) > 1:
            raise unimplemented(
                "PARALLELISM_NOT_MEASURED",
                f"parallelism.{name}: ranks of one stage are measured, which share all weights"
                " alike, without replicas or whole experts of their own; leave it out, or use"
                " Predict",
            )
    if question.kv_precision is not question.precision.activation:
        raise unimplemented(
            "KV_CACHE_PRECISION_NOT_MEASURED",
            f"kv_cache_precision: a cache in {question.kv_precision} cannot be measured yet; leave"
            " it out, or use Predict",
        )


def _has_modules(attention: AnyAttention) -> bool:
    if isinstance(attention, Attention):
        return not attention.output_gate
    return isinstance(attention, LatentAttention) and attention.indexer is None


def _few_layers(question: Question, cache_bytes: int) -> Architecture:
    """Returns the architecture with as many layers as are run: enough to overflow the cache."""
    architecture = question.architecture
    layers = []
    for group in architecture.layers:
        layer = group.layer.shard(question.parallelism.tensor)
        layer_bytes = (
            layer.parameter_count(architecture.hidden_size) * question.precision.weight_bytes
        )
        copies = max(_MIN_LAYERS, math.ceil(2 * cache_bytes / layer_bytes))
        layers.append(replace(group, count=min(group.count, copies)))
    return replace(architecture, layers=tuple(layers))
