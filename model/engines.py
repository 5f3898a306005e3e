"""Inference engines by name, and their coefficients where nobody measured them on the device.

Those with ``fitted_on`` are fitted on the latencies that the engines' own documents
publish (``python benchmarks/published.py`` prints them and their error on models left
out). The others are round figures; those of ``transformers`` are set against eager
decoding of 7B models (25 to 30 ms a token on A100 and H100). A cost model that was fitted
on the device replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import UnknownNameError


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine on a GPU.

    Attributes:
        name: name to ask for.
        host_s: host time to launch one kernel; the device works meanwhile.
        kernel_s: time of an empty kernel on the device.
        elementwise: share of a layer's elementwise kernels and traffic left after fusion.
        step_s: host time of one step (scheduling, sampling, detokenising).
        sequence_s: the same for each sequence of the step.
        request_s: host time of a new request.
        collective_s: time that an all-reduce takes to start among the ranks of a node.
        bandwidth: share of the memory bandwidth that long reads reach.
        int8_share, int4_share: share of that at which packed weights are read, which are
            unpacked on the way (weight-only formats).
        fitted_on: rows that the coefficients were fitted on; empty: round figures.
        microbatches: whether pipeline stages work on different sequences at one time.
        continuous: whether requests join and leave a running batch.
    """

    name: str
    host_s: float = 0.0
    kernel_s: float = 2.5e-6
    elementwise: float = 0.3
    step_s: float = 0.3e-3
    sequence_s: float = 0.0
    request_s: float = 1e-3
    collective_s: float = 8e-6
    bandwidth: float = 0.8
    int8_share: float = 0.9
    int4_share: float = 0.8
    fitted_on: str = ""
    microbatches: bool = True
    continuous: bool = True


_ENGINES = {
    engine.name: engine
    for engine in (
        Engine(
            name="transformers",
            host_s=20e-6,
            elementwise=1.0,
            step_s=1.5e-3,
            request_s=5e-3,
            microbatches=False,
            continuous=False,
        ),
        Engine(name="torch", elementwise=0.8, microbatches=False, continuous=False),
        Engine(
            name="gpt-fast",
            kernel_s=2.42e-6,
            collective_s=9.15e-6,
            bandwidth=0.777,
            int8_share=0.832,
            int4_share=0.592,
            fitted_on="31 rows of gpt-fast at commit 32971d3 on A100",
            microbatches=False,
            continuous=False,
        ),
        Engine(
            name="vllm",
            kernel_s=7.5e-6,
            step_s=1.32e-3,
            sequence_s=10e-6,
            request_s=5e-3,
            collective_s=9.41e-6,
            bandwidth=0.905,
            int8_share=0.9,
            int4_share=0.783,
            fitted_on="109 rows of vLLM 0.6.3 on A100, single sequences",
        ),
        Engine(name="sglang", step_s=1e-3, sequence_s=5e-6, request_s=4e-3),
        Engine(
            name="trtllm",
            kernel_s=3.3e-6,
            step_s=1.16e-3,
            sequence_s=3e-6,
            request_s=2e-3,
            collective_s=60.4e-6,
            bandwidth=0.809,
            fitted_on="34 rows of TensorRT-LLM 0.5.0 on A100 and H100",
        ),
        Engine(
            name="fastertransformer",
            kernel_s=2.95e-6,
            step_s=0.902e-3,
            collective_s=53.8e-6,
            bandwidth=0.763,
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
