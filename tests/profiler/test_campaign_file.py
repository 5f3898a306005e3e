"""A campaign's file loses one measurement at most, and is gone on with where it belongs alone."""

import json
import os
from dataclasses import asdict, replace
from datetime import datetime

import pytest

from model.measurement import Distribution, Measurement
from model.precision import Precision
from profiler import telemetry
from profiler.campaign_file import CampaignFile, CampaignFileError
from reference import campaigns
from reference.campaigns import Header
from reference.errors import MeasurementFileError

HEADER = Header(
    device="h200-sxm",
    environment={"device_name": "NVIDIA H200", "torch_version": "2.11.0", "threads": 0},
    memory_bytes=150_000_000_000,
    create_time="2026-01-01T00:00:00+00:00",
    command="python -m profiler campaign",
)


def row(m):
    return Measurement(
        kind="linear",
        precision=Precision.BF16,
        engine="transformers",
        shape={"m": float(m), "n": 64.0, "k": 32.0},
        latency_ms=Distribution(median=1.5, p10=1.4, p90=1.6, samples=3),
        group="linear 64x32",
        flags=("contended",),
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "campaign.jsonl"


@pytest.fixture
def written(path):
    with CampaignFile(path, HEADER) as file:
        assert file.measured == ()
        for m in (1, 2, 3):
            file.append(row(m))
    return path


def held(path):
    with CampaignFile(path, HEADER) as file:
        return file.measured


def test_what_was_measured_is_there_again(written):
    assert held(written) == (row(1), row(2), row(3))
    found = campaigns.read(written)
    assert found.header == HEADER
    times = [datetime.fromisoformat(line.pop(campaigns.TIME)) for line in found.rows]
    assert times == sorted(times)
    assert all(time.tzinfo is not None for time in times)
    assert [json.loads(json.dumps(asdict(row(m)))) for m in (1, 2, 3)] == found.rows


def test_each_line_is_on_the_disk_before_the_next_is_measured(path):
    with CampaignFile(path, HEADER) as file:
        for count in (1, 2):
            file.append(row(count))
            assert len(campaigns.read(path).rows) == count


def test_a_line_cut_off_anywhere_counts_as_never_written(written):
    whole = written.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    first = whole.find(b"\n") + 1
    for length, kept in [(len(whole) - 1, 2), (last + 1, 2), (last, 2), (first, 0), (5, 0), (0, 0)]:
        written.write_bytes(whole[:length])
        with CampaignFile(written, HEADER) as file:
            assert len(file.measured) == kept
            file.append(row(9))
        assert held(written)[kept:] == (row(9),)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"device_name": "NVIDIA H100 80GB HBM3"}, "device_name was 'NVIDIA H200'"),
        ({"torch_version": "2.12.0"}, "torch_version was '2.11.0' and is '2.12.0'"),
    ],
)
def test_another_device_or_environment_is_refused_and_changes_nothing(written, changes, named):
    before = written.read_bytes()
    other = replace(HEADER, environment={**HEADER.environment, **changes})
    with pytest.raises(CampaignFileError, match=f"{named}.*name another file"):
        CampaignFile(written, other)
    assert written.read_bytes() == before
    assert held(written)  # the lock is free again


def test_how_the_device_stands_is_kept_beside_the_measurements(written):
    moment = telemetry.read("cpu")
    with CampaignFile(written, HEADER) as file:
        file.note(moment)
        file.append(row(99))
    held = campaigns.read(written)
    (state,) = held.states
    assert datetime.fromisoformat(state["time"]) == moment.time
    assert state["memory_total_bytes"] == moment.memory_total_bytes
    assert held.rows[-1]["shape"]["m"] == 99
    with CampaignFile(written, HEADER) as file:
        assert len(file.measured) == len(held.rows)


def test_points_that_took_the_device_with_them_are_known_to_the_next_campaign(written):
    with CampaignFile(written, HEADER) as file:
        assert file.avoided == ()
        file.avoid("linear-64x32")
        file.append(row(99))
        assert file.avoided == ("linear-64x32",)
    with CampaignFile(written, HEADER) as file:
        assert file.avoided == ("linear-64x32",)
        assert len(file.measured) == 4


def test_the_clock_of_a_measurement_is_kept_where_it_was_read(path):
    with CampaignFile(path, HEADER) as file:
        file.append(row(1), clock_mhz=1755.0)
        file.append(row(2))
    first, second = campaigns.read(path).rows
    assert first[campaigns.CLOCK] == 1755.0
    assert campaigns.CLOCK not in second
    assert held(path) == (row(1), row(2))


def test_two_campaigns_do_not_write_one_file(written):
    with CampaignFile(written, HEADER), pytest.raises(CampaignFileError, match="another campaign"):
        CampaignFile(written, HEADER)


@pytest.mark.parametrize("content", [b"kind,precision\n", b"something", b"[1]\n", b"\xff\n", b"\n"])
def test_what_is_no_campaigns_file_is_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(CampaignFileError, match="no campaign's file; name another"):
        CampaignFile(path, HEADER)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"kind": 3}, "kind is missing"),
        ({"precision": "bf61"}, "precision is 'bf61'"),
        ({"shape": {"m": "1"}}, "shape is damaged"),
        ({"flags": "slow"}, "flags are damaged"),
        ({"time": "noon"}, "time is damaged"),
        ({"seconds": {"timing": None}}, "seconds is damaged"),
        ({"seconds": 3.0}, "seconds is damaged"),
        ({"clock_mhz": "fast"}, "clock_mhz is damaged"),
        ({"latency_ms": {"median": 1.0}}, "latency_ms is damaged"),
        (
            {"latency_ms": {"median": -1.0, "p10": 1.0, "p90": 1.0, "samples": 1}},
            "latency_ms is damaged",
        ),
        (
            {"latency_ms": {"median": 1.0, "p10": 1.0, "p90": 1.0, "samples": 1.5}},
            "latency_ms is damaged",
        ),
        (
            {"latency_ms": {"median": 1e300, "p10": 1.0, "p90": 1e300, "samples": 1}},
            "latency_ms.median is 1e+300, more than an hour (3600000); remove the line",
        ),
    ],
)
def test_a_damaged_line_is_named(written, changes, fault):
    with written.open("a") as file:
        file.write(json.dumps({**asdict(row(4)), **changes}) + "\n")
        file.write("nothing\n")
    with pytest.raises(MeasurementFileError) as caught:
        campaigns.read(written)
    first, second = caught.value.problems
    assert first.startswith(f"{written}:5: {fault}")
    assert second.startswith(f"{written}:6: kind is missing")


def test_a_later_format_and_a_damaged_header_are_told_apart(written):
    lines = written.read_text().splitlines(keepends=True)
    for changes, said in [({"version": 2}, "version 2 is not 1"), ({"device": 4}, "damaged")]:
        header = json.dumps({**HEADER.to_json(), **changes}) + "\n"
        written.write_text("".join([header, *lines[1:]]))
        with pytest.raises(MeasurementFileError, match=said):
            campaigns.read(written)


def test_a_full_disk_keeps_what_was_measured(written, monkeypatch):
    write = os.write
    with CampaignFile(written, HEADER) as file:
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        with pytest.raises(OSError, match="disk is full"):
            file.append(row(4))
    monkeypatch.undo()
    assert held(written) == (row(1), row(2), row(3))
