"""`measurements`: what was measured, and campaigns brought home from elsewhere."""

from __future__ import annotations

import hashlib
import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reference import campaigns
from reference.errors import MeasurementFileError
from tokenpace import arguments
from tokenpace.commands.importing import Rows, bring
from tokenpace.commands.options import Page, PageSize
from tokenpace.commands.session import USAGE, Address, CommandError, Json, Session, progress_bar
from tokenpace.render import catalog as render
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reference.campaigns import CampaignFile

app = typer.Typer(help="List the stored measurements, newest first; or import a campaign's.")

_LONGEST_ORIGIN = 150
_DIGITS = 16


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    *,
    device: Annotated[str, typer.Option(help="List this device's.")] = "",
    job: Annotated[str, typer.Option(help="List this job's.")] = "",
    kind: Annotated[str, typer.Option(help="List this kind of point, such as linear.")] = "",
    page_size: PageSize = 0,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List the stored measurements, newest first; or import a campaign's."""
    context.obj = (address, json)
    if context.invoked_subcommand is not None:
        for name, value in (("device", device), ("job", job), ("kind", kind)):
            if value:
                raise typer.BadParameter(
                    f"lists; leave it out, or put it behind {context.invoked_subcommand}",
                    param_hint=f"--{name}",
                )
        return
    with Session(address, json) as session:
        answer = session.client.measurements(
            device=device, job_id=job, kind=kind, page_size=page_size, page_token=page_token
        )
        session.show(answer, render.measurements)


@app.command("import")
def import_(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(help="Files of `python -m profiler campaign`.", metavar="FILE..."),
    ],
    *,
    device: Annotated[
        str,
        typer.Option(
            help="Data sheet that the card stands for, such as h100-sxm, where it was not"
            " recognised."
        ),
    ] = "",
    source: Annotated[
        str, typer.Option(help="Who measured, and the licence.", metavar="TEXT")
    ] = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """Bring home what a campaign without a daemon measured, and fit a cost model on it.

    The card's name then answers by it. Files of one card are fitted together.
    """
    if len(source) > _LONGEST_ORIGIN:
        raise typer.BadParameter(
            f"is longer than {_LONGEST_ORIGIN} characters", param_hint="--source"
        )
    found = [(path, _read(path)) for path in paths]
    by_device: dict[str, list[CampaignFile]] = {}
    for path, file in found:
        by_device.setdefault(_device_of(path, file, device), []).append(file)
    with Session.within(context, address, json) as session:
        for name, files in by_device.items():
            with progress_bar(name) as report:
                fitted = bring(session, _rows_of(name, files, source), report)
            session.show(fitted, lambda answer: render.cost_model(answer.cost_model))


def _read(path: Path) -> CampaignFile:
    try:
        file = campaigns.read(path)
    except OSError as error:
        raise CommandError(USAGE, f"cannot read {path}: {error.strerror}") from error
    except MeasurementFileError as error:
        raise CommandError(USAGE, str(error)) from error
    if file is None or not file.rows:
        raise CommandError(
            USAGE, f"{path} holds no measurement; give `python -m profiler campaign` more time"
        )
    return file


def _device_of(path: Path, file: CampaignFile, asked: str) -> str:
    recognised, name = file.header.device, file.header.device_name
    if file.header.environment.get("device_kind") == "cpu" and asked != "cpu":
        flag = f"; --device {asked} cannot be what it stands for" if asked else ""
        raise CommandError(
            USAGE,
            f"{path} was measured on a CPU, {name}{flag}; leave it out, and measure the GPU in"
            " its own machine (a CPU is measured where it is, by `tokenpace profile`)",
        )
    if recognised and asked not in {"", recognised}:
        raise CommandError(
            USAGE, f"{path} was measured on {recognised} ({name}); leave --device {asked} out"
        )
    if not recognised and not asked:
        raise CommandError(
            USAGE,
            f"{path} was measured on {name}, which no data sheet is known of; name the device"
            " that it stands for: --device h100-sxm, or another of `tokenpace devices`",
        )
    if not recognised:
        print(f"note: what {name} measured stands for {asked}", file=sys.stderr)
    return recognised or asked


def _rows_of(device: str, files: Sequence[CampaignFile], origin: str) -> Rows[Mapping[str, Any]]:
    rows = [row for file in files for row in file.rows]
    return Rows(device, campaigns.engine_of(rows), _source(files, origin), rows, _message)


def _source(files: Sequence[CampaignFile], origin: str) -> str:
    """Returns what a file is known again by: its header and its rows."""
    digest = hashlib.sha256()
    for file in files:
        content = [file.header.to_json(), *file.rows]
        digest.update(json_format.dumps(content, sort_keys=True).encode())
    measured = f"{files[0].header.description}, sha256 {digest.hexdigest()[:_DIGITS]}"
    return "; ".join(filter(None, (measured, origin)))


def _message(row: Mapping[str, Any]) -> types_pb2.Measurement:
    return types_pb2.Measurement(
        kind=row["kind"],
        precision=arguments.precision(row["precision"]),
        engine=row["engine"],
        shape=row["shape"],
        latency_ms=types_pb2.Distribution(
            **{name: row["latency_ms"][name] for name in ("median", "p10", "p90", "samples")}
        ),
        group=row["group"],
        flags=row["flags"],
    )
