"""Independent work side by side, in forked processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, TypeVar

from joblib import cpu_count
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_MOST_PROCESSES = 4


class _Child:
    """What a forked process does, set when it begins: it need not be sent."""

    work: Callable[[Any], Any]


def usual_processes() -> int:
    """Returns how many processes share a fit: the processor's threads, up to four.

    More gain little: the largest kernel takes a quarter of the time.
    """
    return min(_MOST_PROCESSES, int(cpu_count()))


def side_by_side(
    work: Callable[[_Task], _Result], tasks: Sequence[_Task], processes: int
) -> Iterator[tuple[_Task, _Result]]:
    """Yields each task with its result, in any order.

    Args:
        work: does a task; what it holds is shared with the processes, not sent.
        tasks: begun in this order; they and the results are sent.
        processes: that share the tasks; 1 does them in this one. They end with this one.

    Raises:
        BrokenProcessPool: one of them was killed.
        Exception: that of the work.
    """
    processes = min(processes, len(tasks))
    if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from ((task, work(task)) for task in tasks)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _begin, (work,)) as pool:
        for done in as_completed([pool.submit(_do, task) for task in tasks]):
            yield done.result()


def _begin(work: Callable[[Any], Any]) -> None:
    _Child.work = staticmethod(work)
    # As many threads as processes: with more of them they wait for each other.
    threadpool_limits(limits=1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 - runs in children alone
    parent.join()
    os._exit(1)


def _do(task: Any) -> tuple[Any, Any]:  # noqa: ANN401 - as they come
    return task, _Child.work(task)
