import sys
import threading
from types import SimpleNamespace

import pytest

from model.estimate import Provenance, ValidationScore
from model.precision import Precision
from server import cost_models, reference_cost_models
from server.cost_models import CostModels, NoMeasurementsError
from server.devices import DeviceRegistry
from server.fitting import FitCancelledError, FitError, FitTimeoutError

ECHO = "import sys; data = sys.stdin.read(); print(data.count('linear'))"


def command(program):
    return [sys.executable, "-c", program]


@pytest.fixture
def devices():
    return DeviceRegistry()


@pytest.fixture(autouse=True)
def trees(monkeypatch):
    """Stands for the regression: the serialised model is the number of its rows."""

    def from_bytes(blob):
        score = ValidationScore(
            kind="linear",
            precision=Precision.FP32,
            rows=int(blob),
            groups=1,
            mean_error=0.1,
            median_error=0.1,
            p90_error=0.1,
            coverage=0.9,
        )
        return SimpleNamespace(
            measurement_count=int(blob),
            scores=(score,),
            precisions=(Precision.FP32,),
            engines=("torch",),
            provenance=Provenance.MEASURED_LOCALLY,
        )

    for module in (cost_models, reference_cost_models):
        monkeypatch.setattr(module, "cost_model_of", from_bytes)


@pytest.fixture
def measured(store, devices, point):
    device = devices.get("cpu")

    def measure(count):
        store.measurements.append(
            [point(m) for m in range(count)], device="cpu", environment=device.environment
        )
        return device

    return measure


def test_a_fit_makes_a_current_model_that_is_there_after_a_restart(store, devices, measured):
    models = CostModels(store, devices, command(ECHO))
    device = measured(3)
    assert models.current(device) is None
    fitted = models.fit(device, timeout_s=30)
    assert models.current(device) is fitted
    assert fitted.record.measurement_count == 3
    assert fitted.record.fingerprint == device.fingerprint
    again = CostModels(store, devices, command(ECHO))
    assert again.current(device).record == fitted.record
    # "local" and "cpu" are one device without a GPU
    if devices.get("local").stored_name == "cpu":
        assert again.current(devices.get("local")) is again.current(device)


def test_a_second_fit_takes_the_place_of_the_first(store, devices, measured):
    models = CostModels(store, devices, command(ECHO))
    first = models.fit(measured(1), timeout_s=30)
    second = models.fit(measured(1), timeout_s=30)
    assert models.current(devices.get("cpu")) is second
    assert second.record.measurement_count == 2
    assert store.cost_models.get(first.record.id).current is False


def test_measurements_of_another_environment_are_left_out(store, devices, environment, point):
    store.measurements.append([point()], device="cpu", environment=environment)
    models = CostModels(store, devices, command(ECHO))
    with pytest.raises(NoMeasurementsError, match="run a profile job"):
        models.fit(devices.get("cpu"), timeout_s=30)


@pytest.mark.parametrize("program", ["import sys; sys.exit('no')", "print('no number')"])
def test_a_failed_fit_leaves_the_current_model(store, devices, measured, program):
    before = CostModels(store, devices, command(ECHO)).fit(measured(1), timeout_s=30)
    models = CostModels(store, devices, command(program))
    with pytest.raises(FitError):
        models.fit(devices.get("cpu"), timeout_s=30)
    assert models.current(devices.get("cpu")).record == before.record


def test_fits_of_one_device_wait_for_each_other(store, devices, measured, tmp_path):
    flag = tmp_path / "flag"
    slow = f"import time; open({str(flag)!r}, 'w'); time.sleep(60)"
    models = CostModels(store, devices, command(slow))
    device = measured(1)
    ended = threading.Event()
    outcome = []

    def run():
        try:
            models.fit(device, timeout_s=60, cancelled=ended)
        except FitCancelledError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not flag.exists():
        ended.wait(0.01)
    with pytest.raises(FitTimeoutError, match="another fit"):
        models.fit(device, timeout_s=0.2)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(FitCancelledError):
        models.fit(device, timeout_s=10, cancelled=cancelled)
    ended.set()
    thread.join(10)
    assert len(outcome) == 1


def test_a_stored_model_that_cannot_be_read_counts_as_none(store, devices, measured, monkeypatch):
    CostModels(store, devices, command(ECHO)).fit(measured(1), timeout_s=30)

    def unreadable(blob):
        raise ValueError("another format")

    monkeypatch.setattr(reference_cost_models, "cost_model_of", unreadable)
    assert CostModels(store, devices).current(devices.get("cpu")) is None
