import functools
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from model.estimate import Provenance, ValidationScore
from model.precision import Precision
from server import cost_models, reference_cost_models
from server.cost_models import CostModels, NoMeasurementsError
from server.devices import DeviceRegistry
from server.fitting import FitCancelledError, FitError, FitTimeoutError
from server.imports import imported_environment

ECHO = "import sys; data = sys.stdin.read(); print(data.count('linear'), *sys.argv[1:])"


def command(program):
    return [sys.executable, "-c", program]


@pytest.fixture
def devices():
    return DeviceRegistry()


@pytest.fixture(autouse=True)
def trees(monkeypatch):
    """Stands for the regression: the serialised model is the number of its rows, and whose."""

    def from_bytes(blob):
        rows, *published = blob.split()
        score = ValidationScore(
            kind="linear",
            precision=Precision.FP32,
            rows=int(rows),
            groups=1,
            mean_error=0.1,
            median_error=0.1,
            p90_error=0.1,
            coverage=0.9,
        )
        return SimpleNamespace(
            measurement_count=int(rows),
            scores=(score,),
            precisions=(Precision.FP32,),
            engines=("torch",),
            provenance=Provenance.REFERENCE_DATA if published else Provenance.MEASURED_LOCALLY,
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
    assert [models.in_use(it.record) for it in (first, second)] == [False, True]


def test_what_was_fitted_in_another_environment_is_not_in_use(
    store, devices, measured, environment
):
    models = CostModels(store, devices, command(ECHO))
    fitted = models.fit(measured(1), timeout_s=30).record
    old = replace(fitted, id="cm-old", fingerprint=environment.fingerprint)
    store.cost_models.add(old, b"trees", environment)
    assert store.cost_models.get("cm-old").current
    assert [models.in_use(it) for it in (fitted, old)] == [True, False]
    gone = replace(fitted, device="local:7")
    assert not models.in_use(gone)


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


def waits(condition, timeout_s=30):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def unreadable(monkeypatch, trees):
    """Makes cost models of so many rows unreadable, as those of another version are."""
    readable = cost_models.cost_model_of

    def refuse(rows):
        def from_bytes(blob):
            if int(blob.split()[0]) == rows:
                raise ValueError("another format")
            return readable(blob)

        for module in (cost_models, reference_cost_models):
            monkeypatch.setattr(module, "cost_model_of", from_bytes)

    return refuse


def test_a_stored_model_that_cannot_be_read_is_fitted_again(store, devices, measured, unreadable):
    before = CostModels(store, devices, command(ECHO)).fit(measured(1), timeout_s=30)
    device = measured(1)
    unreadable(rows=1)
    models = CostModels(store, devices, command(ECHO))
    assert models.refitting(device)
    waits(lambda: models.current(device) is not None)
    waits(lambda: not models.refitting(device))
    assert models.current(device).record.measurement_count == 2
    assert store.cost_models.get(before.record.id).current is False
    models.stop()


def test_what_cannot_be_fitted_again_counts_as_none(store, devices, measured, unreadable):
    CostModels(store, devices, command(ECHO)).fit(measured(1), timeout_s=30)
    unreadable(rows=1)
    models = CostModels(store, devices, command("import sys; sys.exit('no')"))
    waits(lambda: not models.refitting(devices.get("cpu")))
    assert models.current(devices.get("cpu")) is None
    models.stop()


def test_a_fit_in_the_background_ends_with_the_daemon(store, devices, measured, unreadable):
    CostModels(store, devices, command(ECHO)).fit(measured(1), timeout_s=30)
    unreadable(rows=1)
    models = CostModels(store, devices, command("import time; time.sleep(600)"))
    assert models.refitting(devices.get("cpu"))
    begin = time.monotonic()
    models.stop()
    assert time.monotonic() - begin < 30
    assert not models.refitting(devices.get("cpu"))


def test_imported_models_that_cannot_be_read_are_fitted_again(store, devices, point, unreadable):
    device = devices.get("h100-sxm")
    environment = imported_environment(device, "someone's rows", "vllm")
    store.measurements.append([point()], device="h100-sxm", environment=environment)
    reference = functools.partial(
        CostModels(store, devices, command(ECHO)).fit_reference, device, "vllm", timeout_s=30
    )
    before = reference()
    _, blob = store.cost_models.current("h100-sxm", environment.fingerprint)
    assert blob.split()[1:] == [b"--published", b"--processors", b"132"]
    store.measurements.append([point(2)], device="h100-sxm", environment=environment)
    unreadable(rows=1)
    models = CostModels(store, devices, command(ECHO))
    assert not models.refitting(device)  # not before someone asks
    assert models.current(device, "vllm") is None
    assert models.refitting(device, "vllm")
    waits(lambda: not models.refitting(device, "vllm"))
    assert models.current(device, "vllm").record.measurement_count == 2
    assert store.cost_models.get(before.record.id).current is False
    models.stop()


def test_a_fit_is_told_of_the_device_that_can_lend_to_it(store, devices, point):
    def blob(name):
        environment = imported_environment(devices.get(name), "someone's rows", "vllm")
        store.measurements.append([point()], device=name, environment=environment)
        CostModels(store, devices, command(ECHO)).fit_reference(
            devices.get(name), "vllm", timeout_s=30
        )
        return store.cost_models.current(name, environment.fingerprint)[1].decode().split()

    # Kin run the same kernels, and the nearest one lends; nobody lends to itself.
    assert "--lender" not in blob("a100-sxm")
    assert "--lender" not in blob("h200-sxm")
    assert blob("h100-sxm")[-3:-1] == ["--lender", "h200-sxm"]
    assert blob("h100-pcie")[-3:-1] == ["--lender", "h100-sxm"]
    assert "--lender" not in blob("l40s")
    models = CostModels(store, devices, command(ECHO))
    here = devices.get("h100-sxm").sheet
    assert models._references.lender("local", here)[0] == "h100-sxm"
    assert models._references.lender("cpu", devices.get("cpu").sheet) is None
