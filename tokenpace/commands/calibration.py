"""`calibrate` and `calibrations`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenpace.benchmark_files.completion import Given, check_suspicions, complete
from tokenpace.benchmark_files.reading import read
from tokenpace.commands import options
from tokenpace.commands.session import Address, Json, Session
from tokenpace.render import calibration as render

if TYPE_CHECKING:
    from tokenpace.client import Client

_REPOSITORIES = "https://huggingface.co/"


def calibrate(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Results of vllm bench serve, aiperf or GuideLLM, or CSV files.", metavar="FILE..."
        ),
    ],
    *,
    name: Annotated[str, typer.Option(help="Name to keep the calibration under.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model of all rows, or NAME=MODEL for rows whose file says NAME;"
            " a preset, config.json or parameter count."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of all rows, such as h100-sxm.")] = "",
    engine: Annotated[str, typer.Option(help="Engine of all rows, such as vllm.")] = "",
    engine_version: Annotated[
        str, typer.Option(help="Its version, for rows that have none; another is another engine.")
    ] = "",
    tp: Annotated[
        int | None, typer.Option("--tp", help="Tensor-parallel size; the others are 1 with it.")
    ] = None,
    pp: Annotated[int | None, typer.Option("--pp", help="Pipeline-parallel size.")] = None,
    dp: Annotated[int | None, typer.Option("--dp", help="Data-parallel size.")] = None,
    ep: Annotated[int | None, typer.Option("--ep", help="Expert-parallel size.")] = None,
    precision: Annotated[
        str,
        typer.Option(
            help=f"Of weights and activations: {options.PRECISIONS}; model: the checkpoint's own."
        ),
    ] = "",
    kv_cache_precision: Annotated[
        str, typer.Option(help="Of the KV cache; else the activations'.")
    ] = "",
    input_tokens: Annotated[int | None, typer.Option(help="Prompt length of all rows.")] = None,
    output_tokens: Annotated[int | None, typer.Option(help="Generated tokens of all rows.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests in flight, all rows.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Fit on rows that look wrong all the same.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report the error before and after, keep nothing.")
    ] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Correct predictions by your own rows; what a file does not say is asked for by flag."""
    if not (name or dry_run):
        raise typer.BadParameter("needed, unless --dry-run", param_hint="--name")
    found = [read(path) for path in files]
    rows = [row for file in found for row in file.rows]
    if not force:
        check_suspicions(rows)
    with Session(address, json) as session:
        given = Given(
            models=model or (),
            device=device,
            engine=engine,
            engine_version=engine_version,
            precision=precision,
            kv_cache_precision=kv_cache_precision,
            tensor=tp,
            pipeline=pp,
            expert=ep,
            data=dp,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            concurrency=concurrency,
            presets=_presets(session.client),
        )
        asked = complete(rows, given)
        answer = session.client.create_calibration(
            name, asked, accept_suspicious=force, validate_only=dry_run
        )
        notes = [f"{p.name}: {note}" for p, f in zip(files, found, strict=True) for note in f.notes]
        notes += [f"{row.source}: {s.text} ({s.code})" for row in rows for s in row.suspicions]
        sources = [row.source for row in rows]
        session.show(answer, lambda it: render.made(it.calibration, sources, notes))


def calibrations(
    name: Annotated[str, typer.Argument(help="Show this one alone, in full.")] = "",
    *,
    delete: Annotated[str, typer.Option(help="Remove this calibration.", metavar="NAME")] = "",
    page_size: options.PageSize = 0,
    page_token: options.Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List calibrations with their error before and after, or remove one."""
    if name and delete:
        raise typer.BadParameter("shows one or removes one, not both", param_hint="--delete")
    with Session(address, json) as session:
        if delete:
            gone = session.client.delete_calibration(delete)
            session.show(gone, lambda _: f"deleted {delete}")
        elif name:
            found = session.client.calibration(name)
            session.show(found, lambda it: render.calibration(it.calibration))
        else:
            listed = session.client.calibrations(page_size=page_size, page_token=page_token)
            session.show(listed, render.calibrations)


def _presets(client: Client) -> dict[str, str]:
    """Returns presets by their name and by the repository that they were read from."""
    found = {}
    for it in client.architectures(page_size=options.LARGEST_PAGE).architectures:
        found[it.name] = it.name
        if it.source.startswith(_REPOSITORIES):
            repository = "/".join(it.source.removeprefix(_REPOSITORIES).split("/")[:2])
            found[repository] = it.name
    return found
