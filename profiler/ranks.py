"""Processes of this machine that compute together, over ``torch.distributed``.

NCCL between GPUs, gloo on the CPU. They meet in a file and talk over loopback: torchrun's
elastic agent, and every store over TCP, would listen on all addresses of the machine.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from profiler.device import Device, open_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MEETING, _RESULT = "meeting", "result"
_PATIENCE = timedelta(minutes=2)
"""A rank that waits so long for the others ends: one of them is gone."""


class RankError(RuntimeError):
    """A rank failed; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One of the processes.

    Attributes:
        index: from 0 on.
        count: of all.
        device: that it computes on, its own where they are GPUs.
    """

    index: int
    count: int
    device: Device

    def slowest(self, values: Sequence[float]) -> list[float]:
        """Returns the largest of all ranks' values, one by one; every rank calls it."""
        shared = torch.tensor(list(values), dtype=torch.float64, device=self.device.torch_device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return [float(value) for value in shared]


def run_on_ranks(
    count: int,
    device: str,
    threads: int,
    work: Callable[Concatenate[Rank, _P], _T],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _T:
    """Runs work in so many processes at a time, and returns what the first of them returns.

    Args:
        count: of ranks, at least 1.
        device: "cpu", or "cuda": each rank has a GPU of its own.
        threads: that each computes with on the CPU.
        work: a function of a module; its arguments and result can be pickled.
        *args: of the work.
        **kwargs: of the work.

    Raises:
        RankError: one of them failed; all have ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            given = (count, Path(folder), device, threads, work, args, kwargs)
            spawn(_start, given, nprocs=count)  # type: ignore[no-untyped-call]
        except ProcessRaisedException as error:
            # Its text is the traceback, which ends with the error.
            reason = str(error).strip().splitlines()[-1]
            raise RankError(f"rank {error.error_index} failed: {reason}") from error
        except ProcessExitedException as error:
            raise RankError(f"rank {error.error_index} failed: {error}") from error
        found: _T = pickle.loads((Path(folder) / _RESULT).read_bytes())  # noqa: S301 - our own
    return found


def _start(
    index: int,
    count: int,
    folder: Path,
    device: str,
    threads: int,
    work: Callable[..., object],
    arguments: tuple[object, ...],
    named: dict[str, object],
) -> None:
    # They would take the address of the machine's name, which others can reach.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    opened = open_device(f"cuda:{index}" if device == "cuda" else device, threads)
    dist.init_process_group(
        "nccl" if opened.is_cuda else "gloo",
        init_method=(folder / _MEETING).as_uri(),
        rank=index,
        world_size=count,
        timeout=_PATIENCE,
    )
    try:
        result = work(Rank(index, count, opened), *arguments, **named)
    finally:
        dist.destroy_process_group()
    if index == 0:
        (folder / _RESULT).write_bytes(pickle.dumps(result))
    # Not by way of Python's own end: a thread of gloo that lets go of a tensor
    # only then asks for a lock that is gone, and the process aborts.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
