"""The driver's library is read alike with and without its package: a real library stands for it."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from profiler import nvml, nvml_library, telemetry

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc")
PROGRAM = """
import sys
if sys.argv[1:]:
    sys.modules["pynvml"] = None
from dataclasses import replace
from profiler import nvml
print(nvml.library.__name__, file=sys.stderr)
for gpu in nvml.gpus():
    print(replace(gpu, handle=None), nvml.driver_version())
    print(nvml.state(gpu), nvml.throttle_reasons(gpu), nvml.energy_joules(gpu))
"""


@pytest.fixture
def build(tmp_path):
    """Compiles the library; what is given is defined in it."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")

    def compiled(**defined):
        path = tmp_path / nvml_library.LIBRARY
        options = [f"-D{name}={value}" for name, value in defined.items()]
        source = Path(__file__).with_name("nvml_stub.c")
        command = [COMPILER, "-shared", "-fPIC", *options, "-o", str(path), str(source)]
        subprocess.run(command, check=True)
        return path

    return compiled


@pytest.fixture
def load(monkeypatch, build):
    """Has the profiler read such a library without the package."""

    def loaded(**defined):
        monkeypatch.setattr(nvml_library, "LIBRARY", str(build(**defined)))
        monkeypatch.setattr(nvml, "library", nvml_library)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    forget()
    yield loaded
    forget()


def forget():
    nvml.gpus.cache_clear()
    nvml_library._library.cache_clear()


def pids(device):
    return [int(text.split()[0]) for text in telemetry.read(device).processes]


def test_all_readings_of_a_gpu(load):
    load()
    first, _, _ = telemetry.local_devices()
    assert (first.display_name, first.memory_bytes) == ("NVIDIA H200", 150_754_820_096)
    assert first.environment.device_uuid == "GPU-0a1b2c3d-0000-1111-2222-333344445555"
    assert first.environment.driver_version == "580.95.05"
    state = telemetry.read("cuda:0", own_processes=[4_194_305])
    assert (state.utilization, state.memory_used_bytes) == (0.25, 5_368_709_120)
    assert (state.temperature_celsius, state.power_watts, state.clock_mhz) == (41.0, 412.5, 1980.0)
    assert state.throttle_reasons == ("power cap", "thermal slowdown (hardware)")
    assert state.processes == ("4194304 ?",)
    assert (state.uncorrected_ecc_errors, state.mig_enabled) == (5_000_000_000, True)
    assert state.persistence_mode is True
    assert telemetry.energy_joules("cuda:0") == 9_876_543_210.123


def test_what_a_gpu_does_not_support_is_unset(load):
    load()
    state = telemetry.read("cuda:1")
    assert (state.temperature_celsius, state.memory_total_bytes) == (42.0, 150_754_820_096)
    assert (state.power_watts, state.clock_mhz, state.uncorrected_ecc_errors) == (None,) * 3
    assert (state.mig_enabled, state.persistence_mode) == (None, None)
    assert (state.utilization, state.throttle_reasons, state.processes) == (0.0, (), ())
    assert telemetry.energy_joules("cuda:1") is None
    with pytest.raises(nvml_library.NVMLError, match="Not Supported") as caught:
        nvml_library.nvmlDeviceGetPowerUsage(nvml.gpus()[1].handle)
    assert caught.value.value == 3


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_drivers_of_every_age_list_the_processes(load, generation):
    load(GENERATION=generation, PROCESSES=3)
    assert pids("cuda:0") == [4_194_304, 4_194_305, 4_194_306]
    # The oldest know of no instances.
    assert telemetry.read("cuda:0").mig_enabled is (True if generation > 1 else None)


@pytest.mark.parametrize("generation", [1, 3])
def test_more_processes_than_there_was_room_for_are_listed(load, generation):
    load(GENERATION=generation, PROCESSES=70)
    assert pids("cuda:0") == [4_194_304 + index for index in range(71)]


def test_a_list_that_outgrows_all_room_is_an_error(load, monkeypatch):
    load(PROCESSES=70)
    gpu = nvml.gpus()[0]
    monkeypatch.setattr(nvml_library, "_TRIES", 1)
    with pytest.raises(nvml_library.NVMLError) as caught:
        nvml_library.nvmlDeviceGetComputeRunningProcesses(gpu.handle)
    assert caught.value.value == nvml_library.NVML_ERROR_INSUFFICIENT_SIZE


def test_without_a_driver_there_are_no_gpus(load, monkeypatch):
    load(FAILS=9)
    assert nvml.gpus() == ()
    with pytest.raises(nvml_library.NVMLError, match="Driver Not Loaded"):
        nvml_library.nvmlInit()
    forget()
    monkeypatch.setattr(nvml_library, "LIBRARY", "libnone.so.1")
    assert nvml.gpus() == ()
    assert nvml.driver_version() == ""
    with pytest.raises(nvml_library.NVMLError, match=r"libnone\.so\.1 is not installed"):
        nvml_library.nvmlInit()


@pytest.mark.skipif(find_spec("pynvml") is None, reason="needs pynvml")
def test_the_package_and_the_library_by_itself_tell_the_same(build):
    folder = build(PROCESSES=40).parent
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "1,0",
    }
    told = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        for arguments in ([], ["without"])
    ]
    assert [each.stderr.split()[-1] for each in told] == ["pynvml", "profiler.nvml_library"]
    assert told[0].stdout == told[1].stdout
    assert told[0].stdout.count("NVIDIA H200") == 1
