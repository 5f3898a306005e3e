"""What tests run on ranks: each of them loads the module of its work, so these load little."""

import os
import signal
import time
from dataclasses import replace
from importlib import import_module

from model.loading import no_collection
from profiler.device import Device
from profiler.processor import core_count

NO_CACHE = Device("cpu", 1)
"""Everything overflows its cache: the fewest layers run."""


def by_name(rank, module, name):
    """Does the work of a module that loads much."""
    with no_collection():
        work = getattr(import_module(module), name)
    return work(rank)


def die(rank):
    """The second rank is gone while the first one goes on."""
    if rank.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(120)


def layers_and_addresses(rank, architecture, points, precision, engines):
    """Returns a layer's latencies, the most addresses that a rank and the process that started
    it listen on, all and those beyond loopback, and the most cores that a rank may run on."""
    import psutil

    with no_collection():
        from profiler.tensor_parallel import layer_latencies

    latencies = [
        each
        for engine in engines
        for each in layer_latencies(rank, architecture, points, precision, 6, engine)
    ]
    held = [
        connection.laddr.ip
        for process in (psutil.Process(), psutil.Process(os.getppid()))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    beyond = sum(address != "127.0.0.1" for address in held)
    return latencies, rank.slowest([len(held), beyond, core_count()])


def measured_live(rank, requests):
    """Returns the result of each request, and the largest and smallest of the ranks' medians,
    the latter negated; layers of models that are not measured whole find no cache."""
    with no_collection():
        from profiler.interface import Scope
        from profiler.live import measure_live

    found = []
    for asked in requests:
        device = NO_CACHE if asked.scope is Scope.LAYER else rank.device
        *_, result = measure_live(asked, device, time.monotonic(), replace(rank, device=device))
        found.append((result, rank.slowest([result.ttft_ms.median, -result.ttft_ms.median])))
    return found
