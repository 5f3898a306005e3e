"""Attention by the fastest kernel that plain torch has for a shape, found by timing each once.

Which of torch's kernels is fastest differs by queries, keys, heads and card, and its own order of
preference takes none of that into account. On a GPU each candidate runs when a shape is first met,
outside what is measured: those that fail or compute something else are left out.

On the CPU torch's own choice stands: its one fused kernel takes two thirds to a seventh of what
the product of its parts does, but for single short sequences (fp32 and bf16, torch 2.13).
"""

from __future__ import annotations

import logging
import time
import warnings
from collections import OrderedDict, defaultdict
from functools import cache, partial
from typing import TYPE_CHECKING

import torch

from profiler.attention_backends import BACKENDS, by_torch
from profiler.device import Device
from profiler.interface import DeviceLostError
from profiler.numerics import InaccurateError
from profiler.texts import typed_line
from profiler.timing import Effort, Stopwatch, captured, time_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from profiler.attention_backends import Attend, Backend, Sight

_LOG = logging.getLogger(__name__)
_TIMES_FASTER = 1.05
"""That a candidate must be to be taken: clocks differ by some percent from one run to the next."""
_LONG_MS = 1.0
"""Of a run whose launches do not count: it is timed once and without a graph."""
_IN_A_GRAPH = 8
"""Shorter runs: a graph of a single one would time its own launch."""
_EFFORT = Effort(seconds=0.01, min_samples=3, sample_ms=0.2)
_PREPARING_S = 60.0
"""That compiling and planning one candidate for all shapes may take in a process."""
_REMEMBERED = 1024
"""Shapes."""
_TOLERANCES = {torch.float32: 3e-3, torch.float16: 3e-3, torch.bfloat16: 1e-2}
"""Relative differences of two kernels: what each of them may be off, as numerics.py has it."""


class Choices:
    """The fastest way to attend to each shape that was met.

    Args:
        device: where it runs.
        backends: candidates beside torch's own choice.
        preparing_s: that first runs of one of them may take beyond later ones, all shapes
            together; then it is asked no more.
        remembered: shapes at most; the one that was not asked for the longest is forgotten.
    """

    def __init__(
        self,
        device: Device,
        backends: Sequence[Backend],
        preparing_s: float = _PREPARING_S,
        remembered: int = _REMEMBERED,
    ) -> None:
        self._device = device
        self._backends = list(backends)
        self._preparing_s = preparing_s
        self._remembered = remembered
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._chosen: OrderedDict[tuple[object, ...], Attend] = OrderedDict()

    def leave_out(self, avoided: Collection[str]) -> None:
        """Asks no more for candidates that took a device with them.

        Args:
            avoided: groups that :class:`DeviceLostError` told of, those of points among them.
        """
        self._backends = [each for each in self._backends if _group(each) not in avoided]

    def attend(
        self, sight: Sight, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """Attends by the fastest, which is found first where the shape is a new one.

        Nothing is timed while a graph is captured: it holds what was chosen when it was warmed up.

        Raises:
            DeviceLostError: a candidate took the whole context with it; its group is the one
                by which :meth:`leave_out` knows the candidate.
            RuntimeError: torch's own choice fails, or memory is out.
        """
        # How a cache lies in memory is compiled and planned for, too.
        key = (sight, query.shape, keys.shape[1], keys.stride(), query.dtype)
        if key in self._chosen:
            self._chosen.move_to_end(key)
            return self._chosen[key](query, keys, values)
        if self._device.is_cuda and torch.cuda.is_current_stream_capturing():
            return by_torch(sight, query, keys, values)
        self._chosen[key] = fastest = self._fastest(sight, query, keys, values)
        if len(self._chosen) > self._remembered:
            self._chosen.popitem(last=False)
        return fastest(query, keys, values)

    def _fastest(
        self, sight: Sight, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> Attend:
        tensors = _telling(query, keys), keys, values
        name: str = "default"
        attend: Attend = partial(by_torch, sight)
        exact = attend(*tensors)
        least = self._milliseconds(partial(attend, *tensors)) / _TIMES_FASTER
        told = [f"{name} {least * _TIMES_FASTER:.4g} ms"]
        for backend in self._backends:
            if self._spent[backend.name] > self._preparing_s:
                continue
            try:
                candidate = self._prepared(backend, sight, tensors, exact)
                if candidate is None:
                    continue
                took = self._milliseconds(partial(candidate, *tensors))
            except Exception as error:  # whatever the parts of torch raise
                told.append(f"no {backend.name} ({typed_line(error)})")
                if lost := self._device.lost():
                    raise DeviceLostError(_group(backend), lost) from error
                continue
            self._spent[backend.name] -= took / 1e3
            told.append(f"{backend.name} {took:.4g} ms")
            if took < least:
                name, attend, least = backend.name, candidate, took
        heads = f"{query.shape[1]} on {keys.shape[1]} heads of {query.shape[3]}"
        _LOG.info(
            "attention by %s: %d x %s, %s, %s: %s",
            *(name, query.shape[0], heads, query.dtype, sight, ", ".join(told)),
        )
        return attend

    def _prepared(
        self,
        backend: Backend,
        sight: Sight,
        tensors: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        exact: torch.Tensor,
    ) -> Attend | None:
        """Returns what attends as torch's own choice does, its first run done; None if it does not.

        Raises:
            Exception: whatever the backend raises; InaccurateError: its result is another one.
        """
        query, keys, _ = tensors
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings():
                # torch warns of each reason for which a kernel does not take a call.
                warnings.simplefilter("ignore")
                attend = backend.plan(sight, query, keys)
                if attend is None:
                    return None
                result = attend(*tensors)
            self._device.synchronize()
        finally:
            self._spent[backend.name] += time.perf_counter() - begin
        error = _relative_error(result, exact)
        if not error <= _TOLERANCES[query.dtype]:  # no number is too far off, too
            raise InaccurateError(f"it differs by {error:.1%} from torch's own choice")
        return attend

    def _milliseconds(self, run: Callable[[], torch.Tensor]) -> float:
        """Returns what a run takes that is not its first."""
        watch = Stopwatch(self._device)
        self._device.synchronize()
        watch.mark()
        run()
        watch.mark()
        (once,) = watch.laps_ms()
        if once > _LONG_MS:
            return once
        graph = captured(self._device, [run] * _IN_A_GRAPH)
        return time_runs(self._device, [graph], _EFFORT).per(_IN_A_GRAPH).distribution.median


def attend_by_fastest(
    sight: Sight, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Attends by the fastest kernel of a GPU, and by torch's own choice elsewhere.

    So it is, too, within a function that torch compiles: nothing can be timed there.

    Args:
        sight: which keys each query sees.
        query: (sequences, query_heads, queries, head_dim).
        keys: (sequences, kv_heads, keys, head_dim).
        values: alike.

    Returns:
        (sequences, query_heads, queries, head_dim).
    """
    if torch.compiler.is_compiling() or not query.is_cuda:
        return by_torch(sight, query, keys, values)
    return choices_of(str(query.device)).attend(sight, query, keys, values)


@cache
def choices_of(device_name: str) -> Choices:
    """Returns the choices of this process on a GPU."""
    return Choices(Device(device_name, cache_bytes=0), BACKENDS)


def leave_out(device_name: str, avoided: Collection[str]) -> None:
    """Has this process ask no more for candidates that took a GPU with them in earlier ones.

    Args:
        device_name: "cuda:0".
        avoided: as :meth:`Choices.leave_out` has it.
    """
    choices_of(device_name).leave_out(avoided)


def _group(backend: Backend) -> str:
    """Returns what a candidate is called where points have their group."""
    return f"attention by {backend.name}"


def _relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Returns the norm of the difference over that of the exact one, summed in 32 bits.

    The difference itself is in the results' type: copies in 32 bits would take twice their memory.
    """
    norm = partial(torch.linalg.vector_norm, dtype=torch.float32)
    return float(norm(found - exact) / norm(exact))


def _telling(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Returns other queries, to which keys weigh apart: else a kernel that errs might pass."""
    size = torch.linalg.vector_norm(keys[0, 0].float(), dim=-1).mean().clamp(min=1e-6)
    spread: torch.Tensor = query.shape[-1] ** 0.5 / size
    return torch.randn_like(query) * spread.to(query.dtype)
