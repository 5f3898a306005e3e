"""Processes of this machine that compute together, over ``torch.distributed``.

torchrun's elastic agent starts them and ends them all when one fails: NCCL between GPUs, gloo on
the CPU. They meet in a file, as every store over TCP would listen on all addresses of the
machine, and talk over loopback.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from profiler import processor
from profiler.device import Device, open_device
from profiler.process_limits import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LOOPBACK = "127.0.0.1"
_AGENTS, _MEETING, _LOGS = "agents", "meeting", "logs"
_PATIENCE = timedelta(minutes=2)
"""A rank that waits so long for the others ends: one of them is gone."""
_WATCHED_S = 0.05
_NO_SIGNAL = "SIGUSR2"
"""The agent takes over some signal; those that end a process keep this process's handlers. What
they raise ends the ranks, too."""
_SEED = 0
"""Of what ranks draw: the same prompt, and routers that send its tokens to the same experts."""
_LAST = -1_000
"""Priority of what a process of ``multiprocessing`` does at its end, behind all else."""

gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""All ranks' tensors behind one another, into one: torch 2.13 has renamed it."""


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
    devices: Sequence[str],
    threads: int,
    work: Callable[Concatenate[Rank, _P], _T],
    *args: _P.args,
    **kwargs: _P.kwargs,
) -> _T:
    """Runs work in a process a device at a time, and returns what the first of them returns.

    Call it on the main thread: processes that end with this one end with the thread that
    started them.

    Args:
        devices: one a rank: "cpu" each, or a GPU of its own as "cuda:0".
        threads: that each computes with on the CPU.
        work: a function of a module; its arguments and result can be pickled.
        *args: of the work.
        **kwargs: of the work.

    Raises:
        RankError: one of them failed; all have ended.
    """
    # Else the agents' store would be a server over TCP beside the file.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=len(devices),
            run_id="ranks",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder) / _AGENTS),
            rdzv_configs={"store_type": "file"},
            local_addr=_LOOPBACK,
            max_restarts=0,
            monitor_interval=_WATCHED_S,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=str(Path(folder) / _LOGS)),
            signals_to_handle=_NO_SIGNAL,
        )
        meeting = (Path(folder) / _MEETING).as_uri()
        try:
            found: dict[int, Any] = elastic_launch(config, _start)(
                os.getpid(), meeting, tuple(devices), threads, work, args, kwargs
            )
        except ChildFailedError as error:
            index, failure = error.get_first_failure()
            raise RankError(f"rank {index} failed: {_reason(failure)}") from error
    result: _T = found[0]
    return result


def _reason(failure: ProcessFailure) -> str:
    """Returns the error of a rank in a line, else how it ended."""
    told: Any = failure.message
    text = told["message"] if isinstance(told, dict) else told
    return " ".join(str(text).split())


def _start(
    parent_pid: int,
    meeting: str,
    devices: tuple[str, ...],
    threads: int,
    work: Callable[..., object],
    arguments: tuple[object, ...],
    named: dict[str, object],
) -> object:
    die_with_parent(parent_pid)
    index = int(os.environ["RANK"])
    # They would take the address of the machine's name, which others can reach.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo"
    try:
        if devices[index] == "cpu":
            _stay_on_cores(index, len(devices), threads)
        opened = open_device(devices[index], threads)
        torch.manual_seed(_SEED)
        dist.init_process_group(
            "nccl" if opened.is_cuda else "gloo",
            init_method=meeting,
            rank=index,
            world_size=len(devices),
            timeout=_PATIENCE,
        )
        result = work(Rank(index, len(devices), opened), *arguments, **named)
        # NCCL waits for the graphs that hold its kernels before it lets go.
        gc.collect()
        dist.destroy_process_group()
    except BaseException:
        Finalize(None, _leave, args=(1,), exitpriority=_LAST)
        raise
    Finalize(None, _leave, args=(0,), exitpriority=_LAST)
    return result if index == 0 else None


def _stay_on_cores(index: int, count: int, threads: int) -> None:
    """Has a rank compute on cores of its own, as launchers of ranks bind them.

    Free to move, it is woken by a message on the core of another rank, and waits for that one's
    kernels.
    """
    cores = processor.cores_of(index, count, threads)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _leave(code: int) -> None:
    """Ends the process, its result or its error handed over.

    Not by way of Python's own end: a thread of gloo that lets go of a tensor only then asks for a
    lock that is gone, and the process aborts; what is left of NCCL may wait for other ranks.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
