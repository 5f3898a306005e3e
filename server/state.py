"""What the services share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.configuration import Configuration
    from server.cost_models import CostModels
    from server.devices import DeviceRegistry
    from server.occupancy import Occupancy
    from server.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One daemon's parts, each safe to use from any thread."""

    configuration: Configuration
    store: Store
    devices: DeviceRegistry
    occupancy: Occupancy
    cost_models: CostModels
