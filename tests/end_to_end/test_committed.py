"""A card's name answers by the committed measurements of a daemon's folder."""

import time

import pytest

from model.precision import Precision
from profiler.__main__ import main
from profiler.campaign_file import CampaignFile
from reference.campaigns import Header
from tokenpace.v1 import catalog_pb2, latency_pb2, types_pb2

HEADER = Header(
    device="h200-sxm",
    environment={"device_name": "NVIDIA H200", "device_kind": "cuda", "torch_version": "2.11.0"},
    memory_bytes=150_754_820_096,
    create_time="2026-01-02T00:00:00+00:00",
    command="python -m profiler campaign",
    commit="0" * 40,
)
FITTING_S = 240
"""A fit takes seconds, and more on a machine that is busy."""


@pytest.fixture
def folder(synthetic_device, tmp_path):
    """What the command makes of a synthetic card's campaign, beside a damaged file."""
    made = tmp_path / "reference"
    made.mkdir()
    campaign = tmp_path / "campaign.jsonl"
    device = synthetic_device(precision=Precision.BF16)
    with CampaignFile(campaign, HEADER) as file:
        for row in device.campaign(linears=20, attentions=30, models=5):
            file.append(row)
    assert main(["compact", str(campaign), "--folder", str(made)]) == 0
    # Looked at behind the other one: its warning says that all is done.
    (made / "l40s.jsonl.gz").write_bytes(b"cut off")
    return made


def provenance(daemon):
    request = latency_pb2.PredictRequest(
        model=types_pb2.ModelSpec(preset="smollm2-135m"),
        device="h200-sxm",
        engine="transformers",
        workload=types_pb2.Workload(input_tokens=32, output_tokens=8),
    )
    return daemon.latency.Predict(request, timeout=30).provenance


def stored(daemon):
    measurements = catalog_pb2.ListMeasurementsRequest(device="h200-sxm", page_size=1)
    models = catalog_pb2.ListCostModelsRequest(device="h200-sxm")
    return (
        daemon.catalog.ListMeasurements(measurements, timeout=30).total_size,
        [it.id for it in daemon.catalog.ListCostModels(models, timeout=30).cost_models],
    )


def test_a_card_answers_by_what_is_committed_and_a_restart_changes_nothing(start_daemon, folder):
    flags = ("--reference-dir", str(folder))
    with start_daemon(*flags) as daemon:
        assert provenance(daemon)  # it answers at once, by physics until the fit has ended
        end = time.monotonic() + FITTING_S
        while provenance(daemon) != types_pb2.PROVENANCE_REFERENCE_DATA:
            assert time.monotonic() < end, daemon.log.read_text()
            time.sleep(0.2)
        before = stored(daemon)
        assert before[0] > 100
        assert len(before[1]) == 1
    log = daemon.log.read_text()
    assert "committed measurements left out" in log
    assert "l40s.jsonl.gz is damaged" in log
    with start_daemon(*flags) as daemon:
        assert provenance(daemon) == types_pb2.PROVENANCE_REFERENCE_DATA
        end = time.monotonic() + FITTING_S
        while daemon.log.read_text().count("l40s.jsonl.gz is damaged") < 2:
            assert time.monotonic() < end
            time.sleep(0.2)
    with start_daemon(*flags) as daemon:
        assert stored(daemon) == before
    assert daemon.log.read_text().count("committed measurements taken in") == 1
