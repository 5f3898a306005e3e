import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.configuration import Configuration, ConfigurationError, descriptions, load


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def write(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_defaults_lie_in_the_xdg_folders(folders):
    configuration, origins = load({}, {})
    assert configuration.address == "127.0.0.1:50051"
    assert configuration.data_dir == folders / "data" / "tokenpace"
    assert configuration.profile_on_start == "off"
    assert set(origins.values()) == {"default"}


def test_flag_beats_environment_beats_file_beats_default(folders):
    file = write(folders / "own.toml", 'address = "h:1"\nmax_queue = 1\ntick = "2s"\n')
    environ = {"TOKENPACE_ADDRESS": "h:2", "TOKENPACE_MAX_QUEUE": "2"}
    configuration, origins = load({"address": "h:3", "config": file}, environ)
    assert (configuration.address, configuration.max_queue, configuration.tick) == ("h:3", 2, 2.0)
    assert origins["address"] == "flag --address"
    assert origins["max_queue"] == "environment TOKENPACE_MAX_QUEUE"
    assert origins["tick"] == f"file {file}"
    assert origins["log_level"] == "default"


def test_the_file_in_the_xdg_folder_is_read_without_being_named(folders):
    file = write(folders / "config" / "tokenpace" / "config.toml", "max_queue = 3\n")
    configuration, origins = load({}, {})
    assert configuration.max_queue == 3
    assert origins["max_queue"] == f"file {file}"


def test_the_environment_names_a_file(folders):
    file = write(folders / "own.toml", "max_queue = 4\n")
    assert load({}, {"TOKENPACE_CONFIG": str(file)})[0].max_queue == 4


def test_a_flag_that_was_not_given_counts_for_nothing():
    assert load({"address": None, "config": None}, {})[1]["address"] == "default"


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("address", "nowhere", "HOST:PORT"),
        ("address", "h:65536", "0 to 65535"),
        ("address", "::1:50051", "HOST:PORT"),
        ("data_dir", "", "path of a folder"),
        ("profile_on_start", "always", "off, quick, full"),
        ("quick_budget", "soon", "90s, 10m, 1h"),
        ("quick_budget", "0.1s", "1 s to"),
        ("quick_budget", "nan", "duration"),
        ("worker_memory_fraction", "1.5", "at most 1"),
        ("worker_memory_fraction", "0", "above 0"),
        ("max_store_bytes", "-1", "size"),
        ("max_queue", "1.5", "whole number"),
        ("max_queue", "x" * 500, "…"),
        ("log_format", "xml", "auto, console, json"),
    ],
)
def test_a_bad_value_names_the_key_its_origin_and_the_remedy(name, value, part):
    variable = f"TOKENPACE_{name.upper()}"
    with pytest.raises(ConfigurationError) as caught:
        load({}, {variable: value})
    assert caught.value.key == name
    assert caught.value.origin == f"environment {variable}"
    assert part in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "toml"),
    [("max_queue", "true"), ("address", "5"), ("tick", "[1]"), ("max_queue", "nan")],
)
def test_a_value_of_the_wrong_type_in_the_file_is_an_error(folders, name, toml):
    file = write(folders / "own.toml", f"{name} = {toml}\n")
    with pytest.raises(ConfigurationError) as caught:
        load({"config": file}, {})
    assert (caught.value.key, caught.value.origin) == (name, f"file {file}")


def test_an_unknown_key_in_the_file_is_an_error(folders):
    file = write(folders / "own.toml", 'adress = "h:1"\n')
    with pytest.raises(ConfigurationError, match=r"adress .*no such setting.*address"):
        load({"config": file}, {})


def test_a_file_that_cannot_be_used_is_an_error(folders):
    for file, part in (
        (folders / "absent.toml", "No such file"),
        (write(folders / "bad.toml", "address ="), "is not TOML"),
    ):
        with pytest.raises(ConfigurationError, match=part):
            load({"config": file}, {})


def test_every_setting_is_described():
    assert set(descriptions()) == set(Configuration.__dataclass_fields__)
    assert all(descriptions().values())


@given(seconds=st.floats(min_value=1, max_value=86_400), unit=st.sampled_from(["s", "m", "h", ""]))
def test_durations_read_as_written(seconds, unit):
    scale = {"s": 1, "m": 60, "h": 3600, "": 1}[unit]
    text = f"{seconds / scale:.9f}{unit}"
    if not 1 <= float(text.rstrip("smh")) * scale <= 86_400:
        return
    assert load({"full_budget": text}, {})[0].full_budget == pytest.approx(seconds, abs=1e-4)


def test_sizes_read_as_written():
    assert load({"max_store_bytes": "3MiB"}, {})[0].max_store_bytes == 3 << 20
