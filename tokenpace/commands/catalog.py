"""`devices`, `architectures` and `models`."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenpace.commands.options import LARGEST_PAGE, Page, PageSize
from tokenpace.commands.session import Address, Json, Session, progress_bar
from tokenpace.render import catalog as render


def devices(
    name: Annotated[str, typer.Argument(help="Show this one alone, in full.")] = "",
    *,
    page_size: PageSize = LARGEST_PAGE,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List the devices that can be answered for; local ones with live telemetry."""
    with Session(address, json) as session:
        if name:
            session.show(session.client.device(name), render.device)
        else:
            answer = session.client.devices(page_size=page_size, page_token=page_token)
            session.show(answer, render.devices)


def architectures(
    model: Annotated[
        str, typer.Argument(help="Show this preset, config.json or parameter count, in full.")
    ] = "",
    *,
    page_size: PageSize = LARGEST_PAGE,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List the presets, or show a model's dimensions."""
    with Session(address, json) as session:
        if model:
            session.show(session.client.architecture(model), render.architecture)
        else:
            answer = session.client.architectures(page_size=page_size, page_token=page_token)
            session.show(answer, render.architectures)


def models(
    cost_model: Annotated[str, typer.Argument(help="Id: show this one alone.")] = "",
    *,
    device: Annotated[str, typer.Option(help="List this device's; with --fit: fit it.")] = "",
    fit: Annotated[
        bool, typer.Option("--fit", help="Fit the device's cost model again on all its rows.")
    ] = False,
    page_size: PageSize = 0,
    page_token: Page = "",
    address: Address = None,
    json: Json = False,
) -> None:
    """List the fitted cost models with their cross-validated error and coverage."""
    if fit and cost_model:
        raise typer.BadParameter(
            "fits a device, not a cost model; leave the id out", param_hint="--fit"
        )
    with Session(address, json) as session:
        if fit:
            with progress_bar("fitting") as report:
                fitted = session.client.fit_cost_model(device=device)
                report(1.0, "fitted")
            session.show(fitted, lambda answer: render.cost_model(answer.cost_model))
        elif cost_model:
            found = session.client.cost_model(cost_model)
            session.show(found, lambda answer: render.cost_model(answer.cost_model))
        else:
            listed = session.client.cost_models(
                device=device, page_size=page_size, page_token=page_token
            )
            session.show(listed, render.cost_models)
