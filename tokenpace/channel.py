"""How the client's channel behaves: size limits and retries."""

from __future__ import annotations

import json

import grpc

MAX_RECEIVE_BYTES = 256 * 1024 * 1024
"""Largest answer taken: 10,000 predictions with their breakdowns stay below."""

_SAFE_TO_REPEAT = (
    ("LatencyService", ("Predict", "BatchPredict", "Sweep", "Plan")),
    (
        "ProfilerService",
        (
            "GetProfileJob",
            "ListProfileJobs",
            "CancelProfileJob",
            "WatchProfileJob",
            "ExportProfileJob",
            "ListSchedules",
            "DeleteSchedule",
        ),
    ),
    (
        "CatalogService",
        (
            "ListDevices",
            "GetDevice",
            "ListArchitectures",
            "GetArchitecture",
            "ListCostModels",
            "GetCostModel",
            "ListMeasurements",
            "GetCalibration",
            "ListCalibrations",
        ),
    ),
)


def open_channel(address: str, *, attempts: int) -> grpc.Channel:
    """Returns a plaintext channel that repeats calls while the daemon is unavailable.

    Calls that would measure, fit or create something twice are never repeated.

    Args:
        address: "host:port", or any target gRPC understands.
        attempts: tries of one call, 1 to 5 (gRPC's own limit); 1 never repeats.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        # The default of 1 s and more would outlast all tries of a call.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if attempts > 1:
        options.append(("grpc.service_config", json.dumps(_service_config(attempts))))
    return grpc.insecure_channel(address, options=options)


def _service_config(attempts: int) -> dict[str, object]:
    return {
        "methodConfig": [
            {
                "name": [
                    {"service": f"tokenpace.v1.{service}", "method": method}
                    for service, methods in _SAFE_TO_REPEAT
                    for method in methods
                ],
                "retryPolicy": {
                    "maxAttempts": attempts,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
