"""Files that a user brings: read, judged by the daemon's own checks, and refused with the place."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.measurement import LONGEST_MS, Distribution, Measurement
from model.precision import Precision
from model.shapes import SIZES, operations_of
from reference import plain
from reference import rows as layout
from reference.errors import MOST_SHOWN, MeasurementFileError
from reference.files import LONGEST_ORIGIN, file_import
from server.imports import imported_measurements
from tokenpace.arguments import precision, spellings
from tokenpace.v1 import catalog_pb2, types_pb2

PAGE = Path(__file__).parents[2] / "docs" / "measurement-files.md"
EXAMPLES = {name: 64.0 for kind in plain.KINDS.values() for name in (*kind.needed, *kind.may)}


def bring(*paths, engine="vllm", origin="me", limit=1000):
    return file_import(paths, device="h100-sxm", engine=engine, origin=origin, limit=limit)


def write(folder, text, name="mine.csv"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def problems(*paths, **options):
    with pytest.raises(MeasurementFileError) as caught:
        bring(*paths, **options)
    return caught.value.problems


def table(rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def request(source):
    """The message that the command sends of a source."""
    return catalog_pb2.ImportMeasurementsRequest(
        device=source.device,
        engine=source.engine,
        source=source.text,
        measurements=[
            types_pb2.Measurement(
                kind=row.kind,
                precision=precision(row.precision),
                engine=row.engine,
                shape=row.shape,
                latency_ms=types_pb2.Distribution(median=row.latency_ms),
                group=row.group,
            )
            for row in source.rows
        ],
    )


LINEAR = {
    "kind": "linear",
    "precision": "bf16",
    "latency_ms": "0.5",
    "m": "8",
    "n": "64",
    "k": "32",
}


# --- the layout -----------------------------------------------------------------


def measured(kind, shape):
    return Measurement(
        kind=kind,
        precision=Precision.BF16,
        engine="vllm",
        shape=shape,
        latency_ms=Distribution(median=1.0, p10=1.0, p90=1.0, samples=1),
        group="",
    )


@pytest.mark.parametrize("kind", plain.KINDS)
def test_the_sizes_of_a_kind_are_those_that_the_model_reads(kind):
    sizes = plain.KINDS[kind]
    assert {*sizes.needed, *sizes.may} <= set(SIZES[kind])
    shape = {name: EXAMPLES[name] for name in sizes.needed}
    operations_of(measured(kind, shape))
    for name in sizes.needed:
        with pytest.raises(KeyError, match=name):
            operations_of(measured(kind, {key: shape[key] for key in shape if key != name}))


def test_the_longest_latency_is_the_models():
    assert layout.LONGEST_MS == LONGEST_MS


def test_precisions_are_spelt_as_the_command_spells_them():
    assert set(plain.PRECISIONS) == set(spellings(types_pb2.Precision, "PRECISION_"))


def test_the_page_names_every_kind_size_and_precision():
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    assert set(plain.COLUMNS) | set(plain.KINDS) <= named
    line = next(line for line in text.splitlines() if line.startswith("| `precision`"))
    assert all(name in line for name in plain.PRECISIONS)


def test_one_line_is_one_row_and_the_load_makes_no_group(tmp_path):
    attention = {"kind": "attention", "precision": "fp8", "latency_ms": "0.25", "sequences": 4}
    attention |= {"query_tokens": 1, "kv_tokens": 512, "query_heads": 32, "kv_heads": 8}
    attention |= {"head_dim": 128, "window": 128}
    (source,) = bring(write(tmp_path, table([LINEAR, LINEAR | {"m": "9.0"}, attention]))).sources
    first, second, third = source.rows
    assert (source.device, source.engine, first.engine) == ("h100-sxm", "vllm", "vllm")
    assert first.shape == {"m": 8.0, "n": 64.0, "k": 32.0}
    assert first.latency_ms == 0.5
    assert first.group == second.group == "n=64 k=32"
    assert (third.precision, third.shape["window"]) == ("fp8", 128.0)
    assert third.group == "query_heads=32 kv_heads=8 head_dim=128 window=128"


def test_columns_of_engine_and_group_go_first_and_each_engine_is_its_own_source(tmp_path):
    rows = [LINEAR | {"engine": "sglang", "group": "g"}, LINEAR]
    found = bring(write(tmp_path, table(rows))).sources
    assert [(it.engine, [row.group for row in it.rows]) for it in found] == [
        ("sglang", ["g"]),
        ("vllm", ["n=64 k=32"]),
    ]
    assert problems(write(tmp_path, table(rows)), engine="") == (
        "mine.csv:3: engine is empty; fill it, or pass --engine for all lines",
    )


def test_balanced_is_there_or_not(tmp_path):
    sizes = {"tokens": 4, "hidden_size": 64, "intermediate_size": 32, "local_experts": 2}
    row = {
        "kind": "experts",
        "precision": "bf16",
        "latency_ms": 1,
        **sizes,
        "experts": 8,
        "top_k": 2,
    }
    rows = [row | {"balanced": 1, "imbalance": ""}, row | {"balanced": 0, "imbalance": 1.5}]
    (source,) = bring(write(tmp_path, table(rows))).sources
    even, skewed = (row.shape for row in source.rows)
    assert even["balanced"] == 1.0
    assert "balanced" not in skewed
    assert (skewed["imbalance"], "imbalance" in even) == (1.5, False)


# --- what is refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"m": "x"}, "mine.csv:2: m is 'x'; it must be a whole number from 1 on"),
        ({"m": "0"}, "mine.csv:2: m is '0'; it must be a whole number from 1 on"),
        ({"m": "1.5"}, "mine.csv:2: m is '1.5'; it must be a whole number from 1 on"),
        ({"m": "1e30"}, "mine.csv:2: m is '1e30'; it must be a whole number from 1 on"),
        ({"m": "inf"}, "mine.csv:2: m is 'inf'; it must be a whole number from 1 on"),
        ({"m": ""}, "mine.csv:2: m is empty; it must be a whole number from 1 on"),
        ({"window": "4"}, "mine.csv:2: window is no size of linear; leave the cell empty"),
        (
            {"latency_ms": "-1"},
            "mine.csv:2: latency_ms is '-1'; it must be a number of milliseconds above 0",
        ),
        (
            {"latency_ms": "nan"},
            "mine.csv:2: latency_ms is 'nan'; it must be a number of milliseconds above 0",
        ),
        (
            {"latency_ms": "1e300"},
            "mine.csv:2: latency_ms is '1e300'; it must be a number of milliseconds above 0 and up"
            " to an hour (3600000)",
        ),
        ({"precision": "bf61"}, "mine.csv:2: precision is 'bf61'; it is one of fp32, bf16, "),
        ({"kind": "layer"}, "mine.csv:2: kind is 'layer'; it is one of linear, "),
        ({"group": "x" * 201}, "mine.csv:2: group is longer than 200 characters; shorten it"),
        (
            {"windows": "4"},
            "mine.csv:1: windows is no column of measurements; did you mean window?",
        ),
        ({"note": "4"}, "mine.csv:1: note is no column of measurements; remove it, or rename it"),
    ],
)
def test_a_wrong_cell_is_named_with_the_remedy(tmp_path, change, problem):
    (found,) = problems(write(tmp_path, table([LINEAR | change])))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("kind", "shape", "named"),
    [
        ("attention", {"query_tokens": 128}, "query_tokens is 128, and cannot exceed kv_tokens"),
        ("experts", {"local_experts": 128}, "local_experts is 128, and cannot exceed experts"),
        ("experts", {"top_k": 128}, "top_k is 128, and cannot exceed experts"),
        ("experts", {"imbalance": 0.5}, "imbalance is '0.5'; it must be a number from 1 on"),
        ("experts", {"balanced": 2}, "balanced is '2'; it must be True or False"),
        ("all_reduce", {"ranks": 1}, "ranks is '1'; it must be a whole number from 2 on"),
    ],
)
def test_sizes_that_contradict_each_other_are_named(tmp_path, kind, shape, named):
    sizes = {name: EXAMPLES[name] for name in plain.KINDS[kind].needed}
    row = {"kind": kind, "precision": "bf16", "latency_ms": 1} | sizes | shape
    (found,) = problems(write(tmp_path, table([row])))
    assert found.startswith(f"mine.csv:2: {named}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "mine.csv holds no row below its head line"),
        ("kind,precision,latency_ms,m,n,k\n", "mine.csv holds no row below its head line"),
        ("kind,m,m\nlinear,1,2\n", "mine.csv:1: m is the name of two columns"),
        ("kind,m,n,k\nlinear,1,2,3\n", "mine.csv:1: latency_ms is missing; add the column"),
        ("ttft_ms,tpot_ms\n1,2\n", "mine.csv:1: holds no measurements of operations"),
        ("kind,latency_ms\nlinear\n", "mine.csv:2: has 1 values, and the head line names 2"),
        ('kind,latency_ms\n"linear', "mine.csv:2 is no CSV"),
    ],
)
def test_a_file_that_is_none_says_why(tmp_path, text, problem):
    assert problems(write(tmp_path, text))[0].startswith(problem)


def test_a_file_that_cannot_be_read_says_so(tmp_path):
    assert problems(tmp_path / "none.csv") == (
        "none.csv cannot be read: No such file or directory",
    )
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in problems(tmp_path / "bytes.csv")[0]


def test_the_first_problems_are_shown_and_the_others_counted(tmp_path):
    rows = [LINEAR | {"m": "0"}] * (MOST_SHOWN + 5)
    with pytest.raises(MeasurementFileError) as caught:
        bring(write(tmp_path, table([LINEAR, *rows])))
    assert str(caught.value).count("must be a whole number") == MOST_SHOWN
    assert str(caught.value).endswith("; and 5 more")


# --- sources --------------------------------------------------------------------


def test_a_source_is_known_again_by_content_and_order_not_by_folder(tmp_path):
    (tmp_path / "other").mkdir()
    first = write(tmp_path, table([LINEAR]))
    again = write(tmp_path / "other", table([LINEAR]))
    second = write(tmp_path, table([LINEAR, LINEAR]), "more.csv")

    def text(*paths, **options):
        return bring(*paths, **options).sources[0].text

    assert text(first) == text(again)
    assert str(tmp_path) not in text(first)
    different = [text(first), text(second), text(first, second), text(second, first)]
    different += [text(first, limit=100), text(first, origin="you")]
    assert len(set(different)) == 6


def test_the_text_of_a_source_always_fits(tmp_path):
    content = table([LINEAR])
    paths = [write(tmp_path, content, f"{'x' * 200}{n}.csv") for n in range(9)]
    text = bring(*paths, origin="y" * LONGEST_ORIGIN).sources[0].text
    assert len(text) <= 500
    assert "6 more" in text


def test_more_rows_than_asked_are_drawn_and_said(tmp_path):
    file = write(tmp_path, table([LINEAR | {"m": m} for m in range(1, 51)]))
    first, second = bring(file, limit=10), bring(file, limit=10)
    assert first == second
    assert len(first.sources[0].rows) == 10
    assert first.notes == ("40 rows of vllm are left out: --rows keeps 10 of a kind and precision",)


# --- hypothesis -----------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(["", "0", "1", "2", "64", "8.0", "nan", "inf", "-3", "True", "1e400", "x"]),
    st.integers(-2, 1 << 54).map(str),
    st.floats().map(str),
    st.text(max_size=5),
)
ROWS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([*plain.KINDS, "layer", ""]),
        "precision": st.sampled_from([*plain.PRECISIONS, "?"]),
        "latency_ms": CELLS,
    },
    optional=dict.fromkeys(plain.COLUMNS[3:], CELLS),
)


@st.composite
def good_rows(draw):
    """Lines as the page describes them."""
    kind = draw(st.sampled_from(list(plain.KINDS)))
    sizes = plain.KINDS[kind]
    row = {name: draw(st.integers(2, 1 << 20)) for name in sizes.needed}
    for less, more in (("query_tokens", "kv_tokens"), ("local_experts", "experts")):
        if less in row and more in row:
            row[less], row[more] = sorted((row[less], row[more]))
    if "experts" in row:
        row["top_k"] = min(row["top_k"], row["experts"])
    latency = draw(st.floats(1e-6, 1e6))
    return row | {
        "kind": kind,
        "precision": draw(st.sampled_from(plain.PRECISIONS)),
        "latency_ms": latency,
    }


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(good_rows(), min_size=1, max_size=8))
def test_what_the_page_describes_is_read_as_it_was_written(tmp_path, rows):
    (source,) = bring(write(tmp_path, table(rows))).sources
    alike = {(row["kind"], row["precision"]) for row in rows}
    assert {(row.kind, row.precision) for row in source.rows} == alike
    written = sorted((row["kind"], row["precision"], row["latency_ms"]) for row in rows)
    assert sorted((r.kind, r.precision, r.latency_ms) for r in source.rows) == written
    for row in source.rows:
        assert any(
            row.shape == {name: it[name] for name in plain.KINDS[row.kind].needed}
            for it in rows
            if it["kind"] == row.kind and it["latency_ms"] == row.latency_ms
        )
    assert len(imported_measurements(request(source)).rows) == len(rows)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_whatever_the_cells_it_is_refused_by_line_or_the_daemon_takes_it(tmp_path, rows):
    file = write(tmp_path, table(rows))
    try:
        found = bring(file)
    except MeasurementFileError as error:
        assert all(problem.startswith("mine.csv") for problem in error.problems)
        return
    assert sum(len(source.rows) for source in found.sources) == len(rows)
    for source in found.sources:
        message = request(source)
        message.engine = "vllm"  # a name that only the daemon can judge
        imported_measurements(message)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_break_a_reader(tmp_path, content):
    for name in ("mine.csv", "mine.parquet"):
        (tmp_path / name).write_bytes(content)
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow", reason="pyarrow (the extra `reference`) is missing")
        assert problems(tmp_path / name)


# --- Parquet --------------------------------------------------------------------


def test_parquet_is_read_as_csv_is(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow (extra `reference`) is missing")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "kind": ["linear", "all_reduce"],
        "precision": ["bf16", "bf16"],
        "latency_ms": [0.5, 0.25],
        "m": [8.0, None],
        "n": [64.0, float("nan")],
        "k": [32.0, None],
        "ranks": [None, 8],
        "message_bytes": [None, 1 << 20],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "mine.parquet")
    linear, reduce = bring(tmp_path / "mine.parquet").sources[0].rows
    assert linear.shape == {"m": 8.0, "n": 64.0, "k": 32.0}
    assert reduce.shape == {"message_bytes": float(1 << 20), "ranks": 8.0}
    columns["m"] = [0.0, None]
    parquet.write_table(pyarrow.table(columns), tmp_path / "mine.parquet")
    assert problems(tmp_path / "mine.parquet") == (
        "mine.parquet:row 1: m is '0.0'; it must be a whole number from 1 on",
    )
