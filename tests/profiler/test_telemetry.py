import importlib.metadata
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from profiler import nvml, processor, telemetry


def test_the_cpu_is_read():
    state = telemetry.read("cpu")
    assert 0 <= state.utilization <= 1
    assert 0 < state.memory_used_bytes < state.memory_total_bytes
    assert state.power_watts is None


def test_the_environment_names_the_installed_versions_without_loading_torch():
    program = (
        "import sys; from profiler.telemetry import current_environment as c;"
        "e = c('cpu'); assert 'torch' not in sys.modules;"
        "print(e.torch_version, e.transformers_version, e.threads, e.fingerprint)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    here = telemetry.current_environment("cpu")
    assert output == [
        here.torch_version,
        here.transformers_version,
        str(here.threads),
        here.fingerprint,
    ]
    assert here.transformers_version == importlib.metadata.version("transformers")


def test_the_version_of_torch_is_the_one_torch_states():
    import torch

    assert telemetry.current_environment("cpu").torch_version == torch.__version__


def test_threads_follow_the_usual_variable(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert 1 <= processor.threads() <= (os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processor.threads() == 7


def test_hyperthreads_of_one_core_count_once(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for cpu in range(4):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{cpu // 2}\n")
    monkeypatch.setattr(processor, "_CPUS", tmp_path)
    monkeypatch.setattr(processor, "_usable", lambda: [0, 1, 2, 3])
    assert processor.threads() == 2
    assert [processor.cores_of(index, 2, 1) for index in range(2)] == [{0, 1}, {2, 3}]
    assert processor.cores_of(0, 1, 2) == {0, 1, 2, 3}
    assert processor.cores_of(0, 2, 2) == set()


def test_last_level_caches_are_summed_once_each(monkeypatch, tmp_path):
    for cpu, shared in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        for index, (level, size) in enumerate([("1", "32K"), ("3", "16M")]):
            cache = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            cache.mkdir(parents=True)
            (cache / "level").write_text(level)
            (cache / "size").write_text(size)
            (cache / "shared_cpu_list").write_text(shared if level == "3" else str(cpu))
    monkeypatch.setattr(processor, "_CPUS", tmp_path)
    monkeypatch.setattr(processor, "_usable", lambda: [0, 1, 2])
    assert processor.last_level_cache_bytes() == 32 << 20
    monkeypatch.setattr(processor, "_CPUS", tmp_path / "none")
    assert processor.last_level_cache_bytes() == 0


def test_the_memory_of_a_control_group_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("250000\n")
    monkeypatch.setattr(processor, "_CONTROL_GROUP", tmp_path)
    assert processor.memory() == (250_000, 1_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert processor.memory()[1] > 1_000_000


def test_the_energy_of_all_packages_is_counted(monkeypatch, tmp_path):
    for name, microjoules in (
        ("intel-rapl:0", 5e6),
        ("intel-rapl:1", 7e6),
        ("intel-rapl:0:0", 9e6),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules:.0f}\n")
    monkeypatch.setattr(processor, "_POWER_CAP", tmp_path)
    assert telemetry.energy_joules("cpu") == 12.0
    meter = telemetry.EnergyMeter("cpu")
    assert meter.spent_joules() is None
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("9500000")
    assert meter.spent_joules() == 2.5
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("10")  # it began anew
    assert meter.spent_joules() is None
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.spent_joules() is None
    monkeypatch.setattr(processor, "_POWER_CAP", tmp_path / "none")
    assert telemetry.EnergyMeter("cpu").spent_joules() is None


def test_an_unknown_device_is_an_error():
    for name in ("cuda:99", "tpu", "cuda"):
        with pytest.raises(ValueError, match="there is no device"):
            telemetry.read(name)


class Driver:
    """Stands for the management library with two GPUs."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0

    class NVMLError(Exception):
        pass

    def nvmlInit(self):  # noqa: N802 - the library's name
        pass

    def __getattr__(self, name):
        answers = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: "NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}a",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=5, total=85_520_809_984),
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=25),
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: 0x1 | 0x4 | 0x40,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=os.getpid()),
                SimpleNamespace(pid=2**22 + 7),
            ],
            "nvmlDeviceGetTemperature": lambda handle, kind: 41,
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1980,
            "nvmlDeviceGetTotalEccErrors": lambda handle, kind, counter: 3 * kind + counter,
            "nvmlDeviceGetMigMode": lambda handle: [handle, 0],
        }
        if name in answers:
            return answers[name]
        return self._refuse

    def _refuse(self, *arguments):
        raise self.NVMLError("not supported")


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.setattr(nvml, "library", Driver())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml.gpus.cache_clear()
    yield monkeypatch
    nvml.gpus.cache_clear()


def test_a_gpu_is_read_and_what_cannot_be_read_is_unset(driver):
    state = telemetry.read("cuda:1", own_processes=[os.getpid()])
    assert state.utilization == 0.25
    assert (state.memory_used_bytes, state.memory_total_bytes) == (5, 85_520_809_984)
    assert (state.temperature_celsius, state.clock_mhz, state.power_watts) == (41.0, 1980.0, None)
    assert state.throttle_reasons == ("power cap", "thermal slowdown (hardware)")
    assert state.processes == (f"{2**22 + 7} ?",)
    assert (state.uncorrected_ecc_errors, state.mig_enabled) == (3, True)
    assert state.persistence_mode is None


def test_the_clock_of_a_gpu_is_read_alone(driver):
    assert telemetry.clock_mhz("cuda:1") == 1980.0
    Driver.nvmlDeviceGetClockInfo = Driver._refuse
    try:
        assert telemetry.clock_mhz("cuda:1") is None
    finally:
        del Driver.nvmlDeviceGetClockInfo
    assert telemetry.clock_mhz("cuda:7") is telemetry.clock_mhz("cpu") is None


def test_what_holds_clocks_down_is_told_but_for_a_power_cap(driver):
    assert telemetry.held_down_by("cuda:0") == ("thermal slowdown (hardware)",)
    Driver.nvmlDeviceGetCurrentClocksThrottleReasons = lambda self, handle: 0x1 | 0x4
    try:
        assert telemetry.held_down_by("cuda:0") == ()
    finally:
        del Driver.nvmlDeviceGetCurrentClocksThrottleReasons
    assert telemetry.held_down_by("cpu") == telemetry.held_down_by("cuda:7") == ()


def test_the_energy_of_a_gpu_is_read_where_it_counts_it(driver):
    assert telemetry.energy_joules("cuda:0") is None
    counts = iter([7_000, 19_500])
    Driver.nvmlDeviceGetTotalEnergyConsumption = lambda self, handle: next(counts)
    try:
        assert telemetry.EnergyMeter("cuda:0").spent_joules() == 12.5
    finally:
        del Driver.nvmlDeviceGetTotalEnergyConsumption


def test_the_environment_of_a_gpu_tells_cards_apart(driver):
    first, second = (telemetry.current_environment(f"cuda:{index}") for index in range(2))
    assert (first.device_kind, first.driver_version) == ("cuda", "580.1")
    assert (first.device_uuid, second.device_uuid) == ("GPU-0a", "GPU-1a")
    assert first.fingerprint != second.fingerprint


def test_gpus_are_listed_before_the_cpu(driver):
    first, second, cpu = telemetry.local_devices()
    assert (first.torch_name, second.torch_name, cpu.torch_name) == ("cuda:0", "cuda:1", "cpu")
    assert first.memory_bytes == 85_520_809_984
    assert second.environment == telemetry.current_environment("cuda:1")
    assert cpu.last_level_cache_bytes == processor.last_level_cache_bytes()


@pytest.mark.parametrize(
    ("setting", "uuids"),
    [
        (None, ["GPU-0a", "GPU-1a"]),
        ("1", ["GPU-1a"]),
        ("1,0", ["GPU-1a", "GPU-0a"]),
        ("GPU-1", ["GPU-1a"]),
        ("0,-1,1", ["GPU-0a"]),
        ("", []),
        ("5", []),
    ],
)
def test_the_gpus_are_those_that_cuda_may_use(driver, setting, uuids):
    if setting is not None:
        driver.setenv("CUDA_VISIBLE_DEVICES", setting)
    assert [gpu.uuid for gpu in nvml.gpus()] == uuids
