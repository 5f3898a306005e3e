"""`reference`: measurements that others have published, and those that a user brings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reference import files, sources, tables
from reference.errors import MeasurementFileError, NotInstalledError
from tokenpace import arguments
from tokenpace.benchmark_files.deployments import merged
from tokenpace.benchmark_files.reading import read
from tokenpace.commands.importing import Rows, bring, held
from tokenpace.commands.reference_calibrations import calibrate_deployments
from tokenpace.commands.session import USAGE, Address, CommandError, Json, Session, progress_bar
from tokenpace.render import catalog as render
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reference.files import FileImport
    from reference.rows import Row
    from reference.sources import Source
    from tokenpace.benchmark_files.rows import BenchmarkRow
    from tokenpace.commands.session import Report

app = typer.Typer(help="Bring in measurements that others have published.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Bring in measurements that others have published."""


@app.command("import")
def import_(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="CSV or Parquet files of measurements, or Vidur's profiles;"
            " else aiconfigurator-core's tables are read.",
            metavar="[FILE...]",
        ),
    ] = None,
    *,
    device: Annotated[
        list[str] | None,
        typer.Option(help="Of this device, such as h100-sxm; all tables' when left out."),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Of this engine, such as vllm; all tables' when left out."),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Of files: who measured, and the licence.", metavar="TEXT")
    ] = "",
    rows: Annotated[
        int, typer.Option(help="Most rows of one kind and precision.", min=100)
    ] = sources.DEFAULT_LIMIT,
    operations_only: Annotated[
        bool,
        typer.Option(
            "--operations-only", help="Make no calibrations of deployments' TTFT and TPOT."
        ),
    ] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Read measurements of operations into the daemon and fit a cost model on them.

    One cut off goes on where it ended; one that is complete is only fitted again. The tables'
    deployments become calibrations, which predict applies where it is asked to.
    """
    if paths:
        found = _read(paths, device or [], engine or [], source, rows)
        with Session(address, json) as session:
            _bring_files(session, found)
        return
    if source:
        raise typer.BadParameter(
            "goes with files; the tables tell their own", param_hint="--source"
        )
    devices = _chosen(device, list(tables.DEVICES), "--device")
    engines = _chosen(engine, list(tables.ENGINES), "--engine")
    with Session(address, json) as session:
        deployments = [] if operations_only else _deployments()
        for name in devices:
            for one in engines:
                with progress_bar(f"{name} {one}") as report:
                    try:
                        tables_source = sources.package_source(name, one, rows)
                    except NotInstalledError as error:
                        raise CommandError(USAGE, str(error)) from error
                    _bring(session, tables_source, report)
                calibrate_deployments(session, deployments, name, one)


def _read(
    paths: Sequence[Path], devices: Sequence[str], engines: Sequence[str], origin: str, limit: int
) -> FileImport:
    if len(devices) != 1:
        raise typer.BadParameter("files need the one they were measured on", param_hint="--device")
    if len(engines) > 1:
        raise typer.BadParameter("files take one, for rows that name none", param_hint="--engine")
    if len(origin) > files.LONGEST_ORIGIN:
        raise typer.BadParameter(
            f"is longer than {files.LONGEST_ORIGIN} characters", param_hint="--source"
        )
    engine = next(iter(engines), "")
    try:
        return files.file_import(
            paths, device=devices[0], engine=engine, origin=origin, limit=limit
        )
    except (MeasurementFileError, NotInstalledError) as error:
        raise CommandError(USAGE, str(error)) from error


def _bring_files(session: Session, found: FileImport) -> None:
    for note in found.notes:
        # Not among the answers, which may be read by a program.
        print(f"note: {note}", file=sys.stderr)
    # The daemon may know no such device or engine: that is heard before a row is sent.
    for source in found.sources:
        held(session, Rows(source.device, source.engine, source.text, source.rows, _message))
    for source in found.sources:
        with progress_bar(f"{source.device} {source.engine}") as report:
            _bring(session, source, report)


def _deployments() -> list[BenchmarkRow]:
    try:
        return merged(read(tables.deployments_file()).rows)
    except NotInstalledError as error:
        raise CommandError(USAGE, str(error)) from error


def _chosen(asked: Sequence[str] | None, known: list[str], flag: str) -> Sequence[str]:
    unknown = [name for name in asked or () if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"no tables of {unknown[0]!r}; there are {', '.join(known)}", param_hint=flag
        )
    return asked or known


def _bring(session: Session, source: Source, report: Report) -> None:
    rows = Rows(source.device, source.engine, source.text, source.rows, _message)
    session.show(bring(session, rows, report), lambda answer: render.cost_model(answer.cost_model))


def _message(row: Row) -> types_pb2.Measurement:
    return types_pb2.Measurement(
        kind=row.kind,
        precision=arguments.precision(row.precision),
        engine=row.engine,
        shape=row.shape,
        latency_ms=types_pb2.Distribution(median=row.latency_ms, samples=1),
        group=row.group,
    )
