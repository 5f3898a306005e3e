"""What the daemon and its worker process say to each other.

Both ends hold a ``multiprocessing.connection.Connection`` over a socket pair
and send these objects. This module imports no torch, so that the daemon can
import it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.architecture import Architecture
    from model.estimate import Phase
    from model.measurement import Distribution, Measurement
    from model.precision import Precision
    from model.workload import Workload
    from profiler.telemetry import Telemetry


ENGINE = "transformers"
"""Whose attention code runs; linears are torch's own under any engine."""
PLAIN_ENGINE = "torch"
"""The plain layers'."""
_IMPORTED = frozenset({"source", "engine"})
"""Fields of an environment that imported measurements alone have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where and with what something is measured; fields as in the API's message.

    Attributes:
        source: of imported measurements: who measured, licence and versions.
        engine: of imported measurements: the engine whose kernels they stand for.
    """

    device_name: str
    device_kind: str
    device_uuid: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    torch_version: str = ""
    transformers_version: str = ""
    threads: int = 0
    platform: str = ""
    python_version: str = ""
    source: str = ""
    engine: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash over all fields; measurements with another one are never mixed in."""
        # Fingerprints stored before there were imports hold nothing of theirs.
        text = "\n".join(
            f"{f.name}={value}"
            for f in fields(self)
            if (value := getattr(self, f.name)) or f.name not in _IMPORTED
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def reserve_s(budget_s: float) -> float:
    """Returns the seconds of a budget that belong to the final fit.

    A fit takes longer the more was measured; a small budget is left to measuring.
    """
    return min(60.0, max(0.15 * budget_s, min(10.0, 0.25 * budget_s)))


class Scope(StrEnum):
    """How much of the model a live measurement runs."""

    LAYER = "layer"
    MODEL = "model"


# --- from the daemon to the worker -------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignRequest:
    """Run a campaign.

    Attributes:
        device: "cpu" or "cuda:0".
        budget_s: seconds from now until the worker must have ended, less
            ``reserve_s`` that the daemon needs for the final fit.
        reserve_s: seconds at the end that belong to the final fit.
        target_error: stop once the cross-validated median error is below; 0 never does.
        precisions: in this order; empty: what the device runs well, its default first, of a GPU
            in less than 20 minutes bf16 and fp8 alone.
        done: what this campaign and earlier ones have measured in this environment.
        seed: of the design; equal seeds pick equal points.
        design_only: whether points are taken as the design has them, without the cost model's
            advice: what that is worth can be told from two campaigns.
        avoided: groups of points, and kernels, that took the device with them before, and are left
            out.
        whole_budget_s: of the campaign that this goes on with, which decides what it measures;
            0: ``budget_s`` is all.
    """

    device: str
    budget_s: float
    reserve_s: float
    target_error: float
    precisions: tuple[Precision, ...]
    done: tuple[Measurement, ...]
    seed: int = 0
    design_only: bool = False
    avoided: tuple[str, ...] = ()
    whole_budget_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """Measure what ranks send each other, by the size of the message.

    Attributes:
        device: that the measurements are of.
        rank_devices: of each rank, two or more.
        precision: of the values that are sent.
        brief: whether every other size and a third of the samples will do.
    """

    device: str
    rank_devices: tuple[str, ...]
    precision: Precision
    brief: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRequest:
    """Measure one request; static batching only.

    Attributes:
        engine: whose modules run: "transformers" or "torch".
        torch_compile: whether layers of engine torch are compiled first.
        trace_path: file that a trace of one more run is written to; empty: none is.
        rank_devices: of each tensor-parallel rank, where all of them run; empty: one alone does.
        alone: why one alone does, where there are several.
    """

    device: str
    budget_s: float
    architecture: Architecture
    workload: Workload
    tensor: int
    precision: Precision
    scope: Scope
    engine: str = ENGINE
    torch_compile: bool = False
    trace_path: str = ""
    rank_devices: tuple[str, ...] = ()
    alone: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop after the point at hand, answer ``Paused`` and wait for ``Resume``."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on."""


WorkerRequest = CampaignRequest | ExchangeRequest | LiveRequest | Pause | Resume

# --- from the worker to the daemon -------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """First event: torch is loaded and the device is there."""

    environment: Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressed:
    """How far it has come: share done (0 to 1) and a text for a person."""

    fraction: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A point to commit at once.

    Attributes:
        measurement: the point.
        seconds: of a campaign: what the time since its measurement before went to, as
            ``profiler.overhead`` has it.
    """

    measurement: Measurement
    seconds: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """How the device stands: before a campaign's first point, now and then, and at its end."""

    state: Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A point that was left out or made smaller, or one way to measure it, with the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Paused:
    """Answer to ``Pause``: the device is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedKernel:
    """A kernel of the device, on the CPU an operator of torch.

    Attributes:
        name: as torch's profiler states it.
        calls: in the pass.
        milliseconds: of all of them together.
    """

    name: str
    calls: int
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedPhase:
    """One pass under torch's profiler, which slows the host down.

    Attributes:
        phase: whose pass it is.
        milliseconds: that it took.
        idle_share: of a pass of all layers, in which no kernel ran, 0 to 1: where a few layers
            stand for them, those that are missing are taken to be as these are.
        communication_share: of it, in which collectives alone ran; on the CPU gloo's, waiting for
            other ranks included.
        kernels: those that took the longest, the longest first.
    """

    phase: Phase
    milliseconds: float
    idle_share: float
    communication_share: float
    kernels: tuple[TracedKernel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveResult:
    """What a live measurement found; ``notes`` are for the reader.

    ``phases`` are those of a trace, empty where none was asked for or written.
    ``energy_per_token_joules`` is that of the device for each token that was generated, the
    prompt's pass included; None where it cannot be read, few layers stand for the model or the
    budget cut the tokens short.
    """

    ttft_ms: Distribution
    tpot_ms: Distribution | None
    notes: tuple[str, ...] = ()
    phases: tuple[TracedPhase, ...] = ()
    energy_per_token_joules: float | None = None


class FailureCode(StrEnum):
    """Why a worker could not do what it was asked."""

    MEMORY = "memory"
    UNSUPPORTED = "unsupported"
    BUDGET = "budget"
    DEVICE_LOST = "device lost"
    FAULT = "fault"


MOST_LOST = 3
"""Processes that may lose the device until it is the device's fault, not the points'."""


class DeviceLostError(Exception):
    """A point took the device with it: this process can use it no more, another one can.

    Attributes:
        group: of the point, or the kernel that took it: "attention by flash".
        message: of the driver.
    """

    def __init__(self, group: str, message: str) -> None:
        super().__init__(f"{group} took the device with it: {message}")
        self.group = group
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Last event when it went wrong; the worker ends with exit code 1.

    Attributes:
        code: why.
        message: for a person.
        group: as :class:`DeviceLostError` has it; empty where the device is there.
    """

    code: FailureCode
    message: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event when all went well; the worker ends with exit code 0.

    Attributes:
        text: what a campaign came to, for a person; empty where there is nothing to tell.
    """

    text: str = ""


WorkerEvent = (
    Started | Progressed | Measured | Observed | Skipped | Paused | LiveResult | Failed | Finished
)
