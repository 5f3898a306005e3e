"""`predict` and `measure`."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenpace.commands import options
from tokenpace.commands.interrupt import interrupts_noted, until_interrupted
from tokenpace.commands.session import Address, Json, Session, progress_bar
from tokenpace.render import latency as render


def predict(
    *,
    model: options.Model,
    input_tokens: options.InputTokens = 512,
    output_tokens: options.OutputTokens = 128,
    batch_size: options.BatchSize = 0,
    concurrency: options.Concurrency = 0,
    cached_prefix_tokens: options.CachedPrefix = 0,
    prefill_chunk_tokens: options.PrefillChunk = 0,
    expert_imbalance: options.ExpertImbalance = 0.0,
    device: options.Device = "",
    engine: options.Engine = "",
    precision: options.PrecisionName = None,
    kv_cache_precision: options.KvPrecision = None,
    tp: options.Tp = 1,
    pp: options.Pp = 1,
    dp: options.Dp = 1,
    ep: options.Ep = 1,
    confidence: options.Confidence = 0.9,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="List the cost of each operation.")
    ] = False,
    require_provenance: Annotated[
        str | None, typer.Option(help="Weakest source that will do, such as measured-locally.")
    ] = None,
    calibration: Annotated[str, typer.Option(help="Name of a calibration to apply.")] = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """Predict TTFT, TPOT, throughput and memory of a model on a device."""
    question = options.question(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        batch_size=batch_size,
        concurrency=concurrency,
        cached_prefix_tokens=cached_prefix_tokens,
        prefill_chunk_tokens=prefill_chunk_tokens,
        expert_imbalance=expert_imbalance,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        device=device,
        engine=engine,
        precision=precision,
        kv_cache_precision=kv_cache_precision,
        confidence=confidence,
    )
    with Session(address, json) as session:
        answer = session.client.predict(
            model,
            breakdown=breakdown,
            require_provenance=require_provenance,
            calibration=calibration,
            **question,
        )
        session.show(answer, lambda answer: render.prediction(answer, confidence))


def measure(
    *,
    model: options.Model,
    input_tokens: options.InputTokens = 128,
    output_tokens: options.OutputTokens = 32,
    batch_size: options.BatchSize = 0,
    concurrency: options.Concurrency = 0,
    cached_prefix_tokens: options.CachedPrefix = 0,
    prefill_chunk_tokens: options.PrefillChunk = 0,
    expert_imbalance: options.ExpertImbalance = 0.0,
    device: options.Device = "",
    engine: options.Engine = "",
    precision: options.PrecisionName = None,
    kv_cache_precision: options.KvPrecision = None,
    tp: options.Tp = 1,
    pp: options.Pp = 1,
    dp: options.Dp = 1,
    ep: options.Ep = 1,
    confidence: options.Confidence = 0.9,
    scope: Annotated[
        str, typer.Option(help="layer: a few real layers, scaled; model: the whole model.")
    ] = "layer",
    budget: Annotated[
        str | None, typer.Option(help="Time for all of it, such as 30s (the default) or 10m.")
    ] = None,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Trace one more run: its kernels, and what holds it back."),
    ] = False,
    torch_compile: Annotated[
        bool,
        typer.Option(
            "--torch-compile", help="Compile the layers of --engine torch first: takes a minute."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Measure beside other processes, which disturb it.")
    ] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Measure a model live on the local device, beside its prediction."""
    question = options.question(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        batch_size=batch_size,
        concurrency=concurrency,
        cached_prefix_tokens=cached_prefix_tokens,
        prefill_chunk_tokens=prefill_chunk_tokens,
        expert_imbalance=expert_imbalance,
        tp=tp,
        pp=pp,
        dp=dp,
        ep=ep,
        device=device,
        engine=engine,
        precision=precision,
        kv_cache_precision=kv_cache_precision,
        confidence=confidence,
    )
    with Session(address, json) as session:
        events = session.client.measure(
            model,
            scope=scope,
            budget=budget,
            trace=trace,
            torch_compile=torch_compile,
            force=force,
            **question,
        )
        with interrupts_noted() as noted, progress_bar("waiting for the device") as report:
            for event in until_interrupted(events, noted):
                session.emit(event)
                if event.HasField("progress"):
                    report(event.progress.fraction, event.progress.text)
                else:
                    report(1.0, "measured")
        session.say(render.live_measurement(event.result, confidence))
