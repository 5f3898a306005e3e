"""Inference engines by name, and what is assumed of their overheads where nobody measured them.

The figures are round ones, set against the latencies that the engines' own documents
publish for A100 and H100 (gpt-fast, FasterTransformer, TensorRT-LLM 0.5, vLLM 0.6.3) and,
for ``transformers``, against eager decoding of 7B models (25 to 30 ms a token on either
card). A fitted cost model replaces them.
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
        Engine(name="gpt-fast", microbatches=False, continuous=False),
        Engine(name="vllm", step_s=2.5e-3, sequence_s=10e-6, request_s=5e-3),
        Engine(name="sglang", step_s=1e-3, sequence_s=5e-6, request_s=4e-3),
        Engine(name="trtllm", step_s=0.5e-3, sequence_s=3e-6, request_s=2e-3),
        Engine(name="fastertransformer", kernel_s=7e-6, step_s=1e-3, continuous=False),
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
