"""A worker that speaks profiler.interface and does as its first argument says.

No torch: it shows what the daemon makes of workers that measure, hang or die.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from model.estimate import Phase
from model.measurement import Distribution, Measurement
from model.precision import Precision
from profiler import process_limits
from profiler.interface import (
    CampaignRequest,
    ExchangeRequest,
    Failed,
    FailureCode,
    Finished,
    LiveRequest,
    LiveResult,
    Measured,
    Observed,
    Pause,
    Paused,
    Progressed,
    Skipped,
    Started,
    TracedKernel,
    TracedPhase,
)
from profiler.telemetry import current_environment, read

POINT_S = 0.02


def measurement(number):
    return Measurement(
        kind="linear",
        precision=Precision.FP32,
        engine="torch",
        shape={"m": float(number), "n": 8.0, "k": 8.0},
        latency_ms=Distribution(median=1.0 + number, p10=1.0, p90=3.0 + number, samples=5),
        group="8x8",
    )


def obey(connection):
    if connection.poll() and isinstance(connection.recv(), Pause):
        connection.send(Paused())
        connection.recv()


def campaign(connection, request, most=None):
    begin = len(request.done)
    end = time.monotonic() + request.budget_s - request.reserve_s
    number = begin
    while time.monotonic() < end and (most is None or number < begin + most):
        time.sleep(POINT_S)
        connection.send(Measured(measurement=measurement(number)))
        number += 1
        connection.send(Progressed(fraction=1 - (end - time.monotonic()) / 100, text="points"))
        obey(connection)


def five(connection, request):
    campaign(connection, request, most=5)
    connection.send(Skipped(reason="too large"))


def watched(connection, request):
    connection.send(Observed(state=read("cpu")))
    for number in range(3):
        spent = {"timing": 1.0 + number, "building": 0.5, "choosing": 0.25}
        connection.send(Measured(measurement=measurement(number), seconds=spent))
    connection.send(Observed(state=read("cpu")))


def sixty(connection, request):
    campaign(connection, request, most=60)


def exchange(connection, request):
    shape = {"message_bytes": 512.0, "ranks": float(len(request.rank_devices))}
    row = replace(measurement(0), kind="all_reduce", precision=request.precision, shape=shape)
    connection.send(Measured(measurement=row))


def apart(connection, request):
    """Its ranks fail where its campaign does not."""
    if isinstance(request, ExchangeRequest):
        fail(connection, FailureCode.FAULT, "rank 1 failed: as told")
    five(connection, request)


def asked(connection, request):
    """Says at its end what came of the error that was asked for."""
    campaign(connection, request, most=5)
    connection.send(Finished(text=f"the asked error of {request.target_error:.1%} took 5 points"))


def told_budget(connection, request):
    campaign(connection, request, most=5)
    connection.send(Skipped(reason=repr(request.budget_s)))


def echo(connection, request):
    connection.send(Skipped(reason=repr(request)))


def live(connection, request):
    connection.send(Progressed(fraction=0.5, text="half"))
    spread = Distribution(median=20.0, p10=19.0, p90=21.0, samples=5)
    tpot = spread if request.workload.output_tokens > 1 else None
    phases = ()
    if request.trace_path:
        Path(request.trace_path).write_text("a trace")
        kernels = (TracedKernel(name="matmul", calls=4, milliseconds=8.0),)
        phases = tuple(
            TracedPhase(
                phase=phase,
                milliseconds=10.0,
                idle_share=0.2,
                communication_share=0.1 if request.rank_devices else 0.0,
                kernels=kernels,
            )
            for phase in Phase
        )
    connection.send(
        LiveResult(
            ttft_ms=spread,
            tpot_ms=tpot,
            notes=("a note",),
            phases=phases,
            energy_per_token_joules=0.25 if request.workload.output_tokens else None,
        )
    )


def told(connection, request):
    r = request
    ranks = "+".join(r.rank_devices) or r.alone
    asked = f"{r.engine} {r.scope} {r.tensor} {ranks} {r.precision}"
    marks = (" traced" if r.trace_path else "") + (" compiled" if r.torch_compile else "")
    text = f"{asked} {r.budget_s:.0f} {r.workload.input_tokens}{marks}"
    fail(connection, FailureCode.FAULT, text)


def both(connection, request):
    (campaign if isinstance(request, CampaignRequest) else live)(connection, request)


def sleep(connection, request):
    time.sleep(60)


def stubborn(connection, request):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    connection.send(Progressed(fraction=0, text=str(child.pid)))
    time.sleep(60)


def crash(connection, request):
    print("the last words", file=sys.stderr, flush=True)
    sys.exit(3)


def killed(connection, request):
    if isinstance(request, CampaignRequest):
        campaign(connection, request, most=3)
    os.kill(os.getpid(), signal.SIGKILL)


def doomed(connection, request):
    """Loses the device behind three points."""
    campaign(connection, request, most=3)
    group = f"point {1 + len(request.avoided)}"
    connection.send(Failed(code=FailureCode.DEVICE_LOST, message="as told", group=group))
    sys.exit(1)


def losing(connection, request):
    """Loses the device with its first two points."""
    (five if len(request.avoided) == 2 else doomed)(connection, request)


def greedy(connection, request):
    try:
        bytearray(2 << 30)
    except MemoryError:
        fail(connection, FailureCode.MEMORY, "no memory left")


def fail(connection, code, message="as told"):
    connection.send(Failed(code=code, message=message))
    sys.exit(1)


def nothing(connection, request):
    pass


BEHAVIOURS = {
    f.__name__: f
    for f in (
        campaign,
        five,
        apart,
        sixty,
        watched,
        asked,
        told_budget,
        echo,
        live,
        told,
        both,
        sleep,
        stubborn,
        crash,
        doomed,
        losing,
        killed,
        greedy,
        nothing,
    )
} | {code.value: lambda c, _, code=code: fail(c, code) for code in FailureCode}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviour", choices=[*BEHAVIOURS, "deaf", "elsewhere"])
    parser.add_argument("--fd", type=int)
    parser.add_argument("--parent-pid", type=int)
    parser.add_argument("--memory-bytes", type=int)
    options = parser.parse_args()
    process_limits.impose(parent_pid=options.parent_pid, memory_bytes=options.memory_bytes)
    connection = Connection(options.fd)
    if options.behaviour == "deaf":
        time.sleep(60)
    request = connection.recv()
    # GPUs of several ranks are such as the test made up.
    ranks = isinstance(request, ExchangeRequest | LiveRequest) and request.rank_devices
    environment = current_environment("cpu" if ranks else request.device)
    if options.behaviour == "elsewhere":
        environment = replace(environment, torch_version="0.1")
    connection.send(Started(environment=environment))
    if isinstance(request, ExchangeRequest) and options.behaviour == "five":
        exchange(connection, request)
    else:
        BEHAVIOURS.get(options.behaviour, five)(connection, request)
    connection.send(Finished())


if __name__ == "__main__":
    main()
