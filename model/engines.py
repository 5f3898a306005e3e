"""Inference engines by name, and their coefficients where nobody measured them on the device.

Those with ``fitted_on`` are fitted on end-to-end rows: of deployments on H100 and H200
(``tokenpace evaluate --table coefficients``), or on the latencies that the engines' own
documents publish (``--table published``); their error on models left out is told by ``--table
deployments`` and ``published``. The others are round figures; those of ``transformers`` are set
against eager decoding of 7B models (25 to 30 ms a token on A100 and H100). A cost model that was
fitted on the device replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from model.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine on a GPU.

    Attributes:
        name: name to ask for.
        host_s: host time to launch one kernel; the device works meanwhile.
        kernel_s: time of an empty kernel on the device.
        elementwise: share of a layer's elementwise kernels left after fusion.
        elementwise_traffic: share of their traffic left.
        step_s: host time of one step (scheduling, sampling, detokenising).
        sequence_s: the same for each sequence of the step.
        request_s: host time of a new request.
        collective_s: time that an all-reduce takes to start among the ranks of a node.
        link: share of the link's bandwidth that large messages reach.
        compute, bandwidth: shares of the peak rate and of the memory bandwidth that
            projections reach.
        attention_compute, attention_bandwidth: the same of attention.
        linear_attention_compute: share of the peak rate that linear attention's chunks
            reach: medians of the kernels timed over 0.2 ms on H200 in aiconfigurator-core
            0.12.0 (``gdn_perf``; vLLM 0.24.0, SGLang 0.5.14, TensorRT-LLM 1.3.0rc20).
        experts_compute, experts_bandwidth: the same of routed experts.
        int8_share, int4_share: share of that at which packed weights are read, which are
            unpacked on the way (weight-only formats).
        interference: share of other requests' prefills that a decode step is held up by,
            while requests join and leave the batch.
        queueing: share of the other requests' prefills that a new request waits for, most
            of it in the burst with which a closed loop begins.
        beside_kernels: coefficients that hold where the device's kernels were measured
            alone and published: what is left for them to tell is less.
        spread: factor by which the ends of a step's 90% interval are moved there at least;
            that of architectures left out.
        fitted_on: rows that the coefficients were fitted on; empty: round figures.
        microbatches: whether pipeline stages work on different sequences at one time.
        continuous: whether requests join and leave a running batch.
    """

    name: str
    host_s: float = 0.0
    kernel_s: float = 2.5e-6
    elementwise: float = 0.3
    elementwise_traffic: float = 0.3
    step_s: float = 0.3e-3
    sequence_s: float = 0.0
    request_s: float = 1e-3
    collective_s: float = 8e-6
    link: float = 0.7
    compute: float = 0.65
    bandwidth: float = 0.8
    attention_compute: float = 0.65
    attention_bandwidth: float = 0.8
    linear_attention_compute: float = 0.1
    experts_compute: float = 0.65
    experts_bandwidth: float = 0.8
    int8_share: float = 0.9
    int4_share: float = 0.8
    interference: float = 1.0
    queueing: float = 0.0
    beside_kernels: Mapping[str, Any] = field(default_factory=dict, hash=False)
    spread: float = 1.5
    fitted_on: str = ""
    microbatches: bool = True
    continuous: bool = True

    def with_measured_kernels(self) -> Engine:
        """Returns the engine with the coefficients that hold beside measured kernels."""
        return replace(self, beside_kernels={}, **self.beside_kernels)


ROUND_BESIDE_KERNELS: dict[str, Any] = {
    "kernel_s": 2.5e-6,
    "elementwise_traffic": 0.5,
    "step_s": 0.5e-3,
    "sequence_s": 5e-6,
}
"""Round figures that end-to-end rows do not tell apart from what was fitted beside them."""
_LIBRARIES = {"nccl", "flashinfer"}
_PLAIN_TORCH = {"transformers", "torch"}
_ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            name="transformers",
            host_s=20e-6,
            elementwise=1.0,
            elementwise_traffic=1.0,
            step_s=1.5e-3,
            request_s=5e-3,
            microbatches=False,
            continuous=False,
        ),
        Engine(
            name="torch",
            elementwise=0.8,
            elementwise_traffic=0.8,
            microbatches=False,
            continuous=False,
        ),
        Engine(
            name="gpt-fast",
            kernel_s=2.36e-6,
            collective_s=9.27e-6,
            bandwidth=0.763,
            int8_share=0.83,
            int4_share=0.601,
            fitted_on="31 rows of gpt-fast at commit 32971d3 on A100",
            microbatches=False,
            continuous=False,
        ),
        Engine(
            name="vllm",
            kernel_s=3.01e-06,
            elementwise=0.247,
            elementwise_traffic=0.584,
            step_s=0.000973,
            sequence_s=5.07e-06,
            request_s=0.0299,
            collective_s=9.24e-06,
            interference=0.661,
            queueing=0.0575,
            link=0.631,
            compute=0.641,
            bandwidth=0.952,
            attention_compute=0.348,
            attention_bandwidth=0.755,
            linear_attention_compute=0.39,
            experts_compute=0.172,
            experts_bandwidth=0.64,
            int4_share=0.881,
            beside_kernels={
                **ROUND_BESIDE_KERNELS,
                "elementwise": 0.159,
                "interference": 0.771,
                "queueing": 0.0745,
                "request_s": 0.0324,
            },
            fitted_on="495 rows of vLLM 0.11 to 0.18 on H100 and H200",
        ),
        Engine(
            name="sglang",
            kernel_s=3.06e-06,
            elementwise=0.247,
            elementwise_traffic=0.575,
            step_s=0.00101,
            sequence_s=5.16e-06,
            request_s=0.15,
            collective_s=9.32e-06,
            interference=0.425,
            queueing=0.321,
            link=0.7,
            compute=0.613,
            bandwidth=0.97,
            attention_compute=0.359,
            attention_bandwidth=0.683,
            linear_attention_compute=0.037,
            experts_compute=0.338,
            experts_bandwidth=0.712,
            int4_share=0.88,
            beside_kernels={
                **ROUND_BESIDE_KERNELS,
                "elementwise": 0.159,
                "interference": 0.669,
                "queueing": 0.0745,
                "request_s": 0.228,
            },
            fitted_on="200 rows of SGLang 0.5.1 to 0.5.9 on H100 and H200",
        ),
        Engine(
            name="trtllm",
            kernel_s=2.94e-06,
            elementwise=0.242,
            elementwise_traffic=0.598,
            step_s=0.00101,
            sequence_s=5.09e-06,
            request_s=0.0953,
            collective_s=9.1e-06,
            interference=0.638,
            queueing=0.0699,
            link=0.615,
            compute=0.584,
            bandwidth=0.97,
            attention_compute=0.347,
            attention_bandwidth=0.752,
            experts_compute=0.36,
            experts_bandwidth=0.792,
            int4_share=0.88,
            beside_kernels={
                **ROUND_BESIDE_KERNELS,
                "elementwise": 0.157,
                "interference": 0.734,
                "queueing": 0.0745,
                "request_s": 0.108,
            },
            fitted_on="711 rows of TensorRT-LLM 1.0 to 1.3 on H100 and H200",
        ),
        Engine(
            name="fastertransformer",
            kernel_s=2.94e-6,
            step_s=0.808e-3,
            collective_s=56.2e-6,
            bandwidth=0.75,
            fitted_on="55 rows of FasterTransformer on A100",
            continuous=False,
        ),
    )
}


def engine(name: str) -> Engine:
    """Returns an engine by its name.

    Raises:
        UnknownNameError: no engine has that name; tells the closest ones.
    """
    if name not in _ENGINES:
        raise UnknownNameError("engine", name, _ENGINES)
    return _ENGINES[name]


def engine_names() -> tuple[str, ...]:
    """Returns the names of all engines."""
    return tuple(_ENGINES)


def shares_kernels(name: str, measured: str) -> bool:
    """Returns whether an engine runs the kernels that were measured under a name.

    Its own, those of NCCL and FlashInfer, which are libraries of all engines, and torch's if it
    is one of torch's.

    Args:
        name: of the engine.
        measured: of an engine or a library.
    """
    return measured == name or measured in _LIBRARIES or {name, measured} <= _PLAIN_TORCH


def gathers_pages(name: str) -> bool:
    """Returns whether what was measured under a name copies pages together before it attends.

    Plain torch has to, as its attention reads no page table: on a CPU a decode takes twice as
    long as over a static cache, whose time that of the engines' own kernels is closer to.
    """
    return name in _PLAIN_TORCH
