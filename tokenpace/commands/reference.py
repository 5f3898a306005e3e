"""`reference`: measurements that others have published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from reference import sources, tables
from tokenpace import arguments
from tokenpace.commands.session import USAGE, Address, CommandError, Json, Session, progress_bar
from tokenpace.render import catalog as render
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reference.rows import Row
    from reference.sources import Source
    from tokenpace.commands.session import Report

app = typer.Typer(help="Bring in measurements that others have published.", no_args_is_help=True)

_ROWS_A_CALL = 5_000


@app.callback()
def root() -> None:
    """Bring in measurements that others have published."""


@app.command("import")
def import_(
    *,
    device: Annotated[
        list[str] | None, typer.Option(help="Of this device, such as h100-sxm; all when left out.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="Of this engine, such as vllm; all when left out.")
    ] = None,
    rows: Annotated[
        int, typer.Option(help="Most rows of one kind and precision.", min=100)
    ] = sources.DEFAULT_LIMIT,
    address: Address = None,
    json: Json = False,
) -> None:
    """Read aiconfigurator-core's tables into the daemon and fit a cost model on them.

    One cut off goes on where it ended; one that is complete is only fitted again.
    """
    devices = _chosen(device, list(tables.DEVICES), "--device")
    engines = _chosen(engine, list(tables.ENGINES), "--engine")
    with Session(address, json) as session:
        for name in devices:
            for one in engines:
                with progress_bar(f"{name} {one}") as report:
                    try:
                        source = sources.package_source(name, one, rows)
                    except tables.NotInstalledError as error:
                        raise CommandError(USAGE, str(error)) from error
                    _send(session, source, report)
                    report(0.5, f"{name} {one}: fitting on {len(source.rows):,} rows")
                    fitted = session.client.fit_cost_model(device=name, engine=one)
                    report(1.0, f"{name} {one}: fitted")
                session.show(fitted, lambda answer: render.cost_model(answer.cost_model))


def _chosen(asked: Sequence[str] | None, known: list[str], flag: str) -> Sequence[str]:
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"no tables of {unknown[0]!r}; there are {', '.join(known)}", param_hint=flag
        )
    return asked or known


def _send(session: Session, source: Source, report: Report) -> None:
    held = 0
    batch: list[types_pb2.Measurement] = []  # none at first: to hear how many are there
    while True:
        held = session.client.import_measurements(
            batch,
            device=source.device,
            engine=source.engine,
            source=source.text,
            first_row=held,
        ).measurement_count
        if held >= len(source.rows):
            return
        batch = [_message(row) for row in source.rows[held : held + _ROWS_A_CALL]]
        share = held / len(source.rows)
        report(0.5 * share, f"{source.device} {source.engine}: {held:,} rows stored")


def _message(row: Row) -> types_pb2.Measurement:
    return types_pb2.Measurement(
        kind=row.kind,
        precision=arguments.precision(row.precision),
        engine=row.engine,
        shape=row.shape,
        latency_ms=types_pb2.Distribution(median=row.latency_ms, samples=1),
        group=row.group,
    )
