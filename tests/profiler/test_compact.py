"""What is committed of a campaign: refused where it tells nothing elsewhere, read as written."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from model import committed
from model.committed import CommittedFileError
from model.precision import Precision
from profiler.__main__ import main
from profiler.campaign_file import CampaignFile
from reference.campaigns import Header

HEADER = Header(
    device="h200-sxm",
    environment={
        "device_name": "NVIDIA H200",
        "device_kind": "cuda",
        "device_uuid": "GPU-1",
        "driver_version": "580.1",
        "torch_version": "2.11.0",
    },
    memory_bytes=150_754_820_096,
    create_time="2026-01-02T00:00:00+00:00",
    command="python -m profiler campaign --budget 8m --out h200.jsonl",
    commit="0" * 40,
    versions={"numpy": "2.4.0"},
)


@pytest.fixture
def rows(synthetic_device):
    return synthetic_device(precision=Precision.BF16).campaign(linears=5, attentions=5, models=2)


@pytest.fixture
def campaign(tmp_path, rows):
    """Writes the file of a campaign; the header's fields may be others."""

    def write(**changes):
        path = tmp_path / "campaign.jsonl"
        path.unlink(missing_ok=True)
        with CampaignFile(path, replace(HEADER, **changes)) as file:
            for row in rows:
                file.append(row)
        return path

    return write


def made(path, folder, capsys):
    code = main(["compact", str(path), "--folder", str(folder)])
    return code, capsys.readouterr()


def edited(content, old, new):
    return gzip.compress(gzip.decompress(content).replace(old, new))


def test_a_campaign_is_read_as_it_was_measured(campaign, rows, tmp_path, capsys):
    path = campaign()
    code, said = made(path, tmp_path, capsys)
    out = tmp_path / "h200-sxm.jsonl.gz"
    assert (code, said.err) == (0, "")
    assert str(out) in said.out
    content = out.read_bytes()
    assert len(content) < 0.2 * path.stat().st_size
    origin = committed.origin_of(content, out)
    assert (origin.device, origin.engine, origin.device_name) == (
        "h200-sxm",
        "transformers",
        "NVIDIA H200",
    )
    assert (origin.driver_version, origin.commit) == ("580.1", "0" * 40)
    assert origin.source.startswith("campaign of 2026-01-02 on NVIDIA H200, driver 580.1, torch")
    assert origin.versions == {"torch": "2.11.0", "numpy": "2.4.0"}
    assert (origin.create_time, origin.command) == (HEADER.create_time, HEADER.command)
    read = committed.measurements_of(content, out)
    for was, now in zip(rows, read, strict=True):
        for name in ("median", "p10", "p90"):
            spread = getattr(now.latency_ms, name)
            assert spread == pytest.approx(getattr(was.latency_ms, name), rel=1e-4)
        assert replace(now, latency_ms=was.latency_ms) == was
    assert committed.write(origin, read) == content
    assert made(campaign(), tmp_path, capsys)[0] == 0
    assert out.read_bytes() == content


def test_a_card_is_known_by_a_data_sheet_that_came_later(campaign, tmp_path, capsys):
    assert made(campaign(device=""), tmp_path, capsys)[0] == 0
    assert (tmp_path / "h200-sxm.jsonl.gz").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"device": "", "environment": {"device_name": "AMD EPYC", "device_kind": "cpu"}},
            ("on a CPU, AMD EPYC", "measure a GPU"),
        ),
        (
            {"device": "", "environment": {"device_name": "NVIDIA X1", "device_kind": "cuda"}},
            ("NVIDIA X1, which no data sheet", "model/data/devices.json"),
        ),
        ({"commit": ""}, ("unknown commit", "clean checkout", "`tokenpace jobs export`")),
        ({"commit": "abc-dirty"}, ("not committed", "clean checkout")),
    ],
)
def test_what_tells_nothing_elsewhere_is_refused(campaign, tmp_path, capsys, changes, said):
    code, written = made(campaign(**changes), tmp_path, capsys)
    assert (code, written.out) == (2, "")
    assert all(part in written.err for part in said)
    assert not list(tmp_path.glob("*.gz"))


def test_a_file_without_measurements_is_refused(tmp_path, capsys):
    empty, other = tmp_path / "empty.jsonl", tmp_path / "other.csv"
    empty.write_text(json.dumps(HEADER.to_json()) + "\n")
    other.write_text("kind,precision\n")
    for path, code, part in (
        (empty, 2, "more time"),
        (other, 2, "no campaign"),
        (tmp_path / "absent.jsonl", 1, "No such file"),
    ):
        done, written = made(path, tmp_path, capsys)
        assert (done, written.out) == (code, "")
        assert part in written.err


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:40] + b"\0" * 8 + content[48:],
        lambda content: b"",
        lambda content: b"no gzip",
        lambda content: gzip.compress(b'{"format": "other"}\n'),
        lambda content: gzip.compress(b"[]\n"),
        lambda content: gzip.compress(
            gzip.decompress(content).replace(b'"median":', b'"median":-')
        ),
        lambda content: gzip.compress(gzip.decompress(content).replace(b'"bf16"', b'"bf61"')),
        lambda content: gzip.compress(gzip.decompress(content).replace(b'"commit"', b'"comit"')),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(campaign, tmp_path, capsys, damage):
    made(campaign(), tmp_path, capsys)
    content = damage((tmp_path / "h200-sxm.jsonl.gz").read_bytes())
    with pytest.raises(CommittedFileError, match=r"card\.gz is damaged .*; restore it"):
        committed.measurements_of(content, Path("card.gz"))


def test_a_file_of_another_version_says_so(campaign, tmp_path, capsys):
    made(campaign(), tmp_path, capsys)
    made_now = (tmp_path / "h200-sxm.jsonl.gz").read_bytes()
    content = edited(made_now, b'"version":1', b'"version":2')
    with pytest.raises(CommittedFileError, match=r"version 2 is not 1; use the tokenpace"):
        committed.origin_of(content, Path("card.gz"))
