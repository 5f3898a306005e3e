"""Processes that compute together: ``torch.distributed`` under torchrun's elastic agent.

All of them are on this machine and talk over loopback: NCCL between GPUs, gloo on the CPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from profiler.device import Device, open_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_P = ParamSpec("_P")
_T = TypeVar("_T")

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
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
    )
    try:
        results = elastic_launch(launch, _start)(device, threads, work, args, kwargs)
    except ChildFailedError as error:
        index, failure = error.get_first_failure()
        said: Any = failure.message
        reason = said if isinstance(said, str) else said["message"]
        raise RankError(f"rank {index} failed: {reason}") from error
    found: _T = results[0]
    return found


def _start(
    device: str,
    threads: int,
    work: Callable[..., _T],
    arguments: tuple[object, ...],
    named: dict[str, object],
) -> _T:
    index = int(os.environ["RANK"])
    # gloo would take the address of the machine's name, which others can reach.
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    opened = open_device(f"cuda:{index}" if device == "cuda" else device, threads)
    dist.init_process_group("nccl" if opened.is_cuda else "gloo", timeout=_PATIENCE)
    try:
        return work(Rank(index, dist.get_world_size(), opened), *arguments, **named)
    finally:
        dist.destroy_process_group()
