import pytest

from model.hardware import device_names
from profiler import telemetry
from profiler.interface import Environment
from profiler.telemetry import LocalDevice
from server.devices import DeviceRegistry
from server.errors import ServiceError


def gpu(name="NVIDIA H100 80GB HBM3", index=0):
    return LocalDevice(
        torch_name=f"cuda:{index}",
        display_name=name,
        memory_bytes=85_520_809_984,
        last_level_cache_bytes=0,
        environment=Environment(device_name=name, device_kind="cuda", device_uuid=f"GPU-{index}"),
    )


@pytest.fixture
def with_gpus(monkeypatch):
    cpu = telemetry.local_devices()[-1]

    def install(*found):
        monkeypatch.setattr(telemetry, "local_devices", lambda: (*found, cpu))
        return DeviceRegistry()

    return install


def test_without_a_gpu_local_is_the_cpu(with_gpus):
    registry = with_gpus()
    local, cpu = registry.get(""), registry.get("cpu")
    assert (local.name, local.stored_name, local.torch_name) == ("local", "cpu", "cpu")
    assert local.sheet == cpu.sheet
    assert local.fingerprint == cpu.fingerprint != ""
    assert local.sheet.memory_bytes > 0
    assert len(registry.local()) == 1
    assert registry.telemetry(local).memory_total_bytes == local.sheet.memory_bytes


def test_gpus_come_first_and_are_recognised(with_gpus):
    registry = with_gpus(gpu(), gpu("NVIDIA Unheard Of", 1))
    assert [device.name for device in registry.all()][:3] == ["local", "local:1", "cpu"]
    local, second = registry.get("local"), registry.get("local:1")
    assert (local.data_sheet, local.torch_name) == ("h100-sxm", "cuda:0")
    assert local.sheet.peaks == registry.get("h100-sxm").sheet.peaks
    assert (second.data_sheet, second.torch_name, second.sheet.kind) == ("", "cuda:1", "cuda")
    assert second.sheet.peaks == {}
    assert registry.get("cpu").stored_name == "cpu"
    assert {device.stored_name for device in registry.local()} == {"local", "local:1", "cpu"}


def test_every_data_sheet_can_be_answered_for_and_has_no_telemetry(with_gpus):
    registry = with_gpus()
    for name in device_names():
        assert registry.get(name).name == name
    assert registry.telemetry(registry.get("h100-sxm")) is None


def test_an_unknown_device_names_the_field(with_gpus):
    with pytest.raises(ServiceError, match="did you mean") as caught:
        with_gpus().get("h100-sx")
    assert caught.value.code.name == "NOT_FOUND"


def test_a_device_elsewhere_cannot_be_measured(with_gpus):
    registry = with_gpus()
    assert registry.get_local("").name == "local"
    with pytest.raises(ServiceError, match=r"device: h100-sxm is not in this machine.*local, cpu"):
        registry.get_local("h100-sxm")


def test_a_lost_driver_leaves_the_device_without_telemetry(with_gpus, monkeypatch):
    registry = with_gpus(gpu())

    def lost(*arguments):
        raise OSError("GPU is lost")

    monkeypatch.setattr(telemetry, "read", lost)
    assert registry.telemetry(registry.get("local")) is None
