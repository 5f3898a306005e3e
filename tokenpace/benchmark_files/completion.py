"""What a benchmark file leaves open, from flags; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tokenpace import arguments
from tokenpace.arguments import ArgumentError
from tokenpace.v1 import catalog_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tokenpace.benchmark_files.rows import BenchmarkRow
    from tokenpace.v1 import types_pb2

_SHOWN = 5
_DEGREES = {"tensor": "--tp", "pipeline": "--pp", "expert": "--ep", "data": "--dp"}
_LENGTHS = ("input_tokens", "output_tokens")
UNKNOWN = "unknown"
"""What is passed for an engine's version that nobody knows any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What flags say; it goes before what a file says. Empty and None: nothing.

    Attributes:
        models: a preset, config.json or parameter count for all rows, or ``NAME=MODEL`` for
            those whose file says NAME.
        device, engine, engine_version, precision, kv_cache_precision: of all rows.
        tensor, pipeline, expert, data: parallel sizes; with a tensor size the others are 1.
        input_tokens, output_tokens, concurrency: of all rows.
    """

    models: Sequence[str] = ()
    device: str = ""
    engine: str = ""
    engine_version: str = ""
    precision: str = ""
    kv_cache_precision: str = ""
    tensor: int | None = None
    pipeline: int | None = None
    expert: int | None = None
    data: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    concurrency: int | None = None
    presets: Mapping[str, str] = field(default_factory=dict)
    """Presets by their own name and by the repository that they were read from."""


def check_suspicions(rows: Iterable[BenchmarkRow]) -> None:
    """Refuses rows that look wrong.

    Raises:
        ArgumentError: there are some; names them and the flag that takes them all the same.
    """
    found = [(row.source, s) for row in rows for s in row.suspicions]
    if not found:
        return
    shown = [f"{source}: {s.text} ({s.code})" for source, s in found[:_SHOWN]]
    if len(found) > _SHOWN:
        shown.append(f"and {len(found) - _SHOWN} more")
    raise ArgumentError(
        "--force",
        f"{'; '.join(shown)}. Leave these rows out, or pass --force to fit on them all the same",
    )


def complete(rows: Sequence[BenchmarkRow], given: Given) -> list[catalog_pb2.CalibrationRow]:
    """Returns the rows as CreateCalibration takes them.

    Raises:
        ArgumentError: neither file nor flags say something; names the flag.
    """
    whole, by_name = _models(given.models)
    return [_complete(row, given, whole, by_name) for row in rows]


def _complete(
    row: BenchmarkRow, given: Given, whole: str, by_name: Mapping[str, str]
) -> catalog_pb2.CalibrationRow:
    version = _required(row, given, "engine_version", "--engine-version", f", or {UNKNOWN!r}")
    precision = _required(row, given, "precision", "--precision", ", or 'model'")
    message = catalog_pb2.CalibrationRow(
        model=_model(row, given, whole, by_name),
        device=_required(row, given, "device", "--device", ", such as h100-sxm"),
        engine=_required(row, given, "engine", "--engine", ", such as vllm"),
        engine_version="" if version == UNKNOWN else version,
        precision=arguments.precision(None if precision == "model" else precision, row.source),
        kv_cache_precision=arguments.precision(
            given.kv_cache_precision or row.kv_cache_precision or None, row.source
        ),
        source=row.source,
    )
    for name in _LENGTHS:
        value = _first(getattr(given, name), getattr(row, name))
        if value is None:
            raise _open(row, name.replace("_", " "), f"--{name.replace('_', '-')}")
        arguments.fill(message.workload, {name: value})
    _set_load(message.workload, row, given)
    _set_degrees(message.parallelism, row, given)
    for name in ("ttft_ms", "tpot_ms"):
        value = getattr(row, name)
        if value is not None:
            setattr(message, name, value)
    if row.ttft_ms is None and row.tpot_ms is None:
        raise ArgumentError(row.source, "holds neither TTFT nor TPOT; leave it out")
    return message


def _set_load(workload: types_pb2.Workload, row: BenchmarkRow, given: Given) -> None:
    concurrency = _first(given.concurrency, row.concurrency)
    if concurrency is not None:
        arguments.fill(workload, {"concurrency": concurrency})
    elif row.batch_size is not None:
        arguments.fill(workload, {"batch_size": row.batch_size})
    else:
        raise _open(row, "how many requests are in flight", "--concurrency")


def _set_degrees(parallelism: types_pb2.Parallelism, row: BenchmarkRow, given: Given) -> None:
    own = {name: _first(getattr(given, name), getattr(row, name)) for name in _DEGREES}
    if own["tensor"] is None:
        raise _open(row, "the tensor-parallel size", "--tp", "; with it the others are 1")
    arguments.fill(parallelism, {name: value or 1 for name, value in own.items()})


def _models(values: Sequence[str]) -> tuple[str, dict[str, str]]:
    whole, by_name = "", {}
    for value in values:
        name, equals, model = value.partition("=")
        if equals:
            by_name[name] = model
        elif whole:
            raise ArgumentError("--model", "takes one model for all rows, or NAME=MODEL for each")
        else:
            whole = value
    return whole, by_name


def _model(
    row: BenchmarkRow, given: Given, whole: str, by_name: Mapping[str, str]
) -> types_pb2.ModelSpec:
    name = by_name.get(row.model) or whole or given.presets.get(row.model, "")
    if not name:
        if not row.model:
            raise _open(row, "the model", "--model")
        raise ArgumentError(
            "--model",
            f"{row.source} says {row.model!r}, which is no preset;"
            f" say which model it is: --model {row.model}=MODEL",
        )
    return arguments.model_spec(name)


def _required(row: BenchmarkRow, given: Given, name: str, flag: str, hint: str) -> str:
    value: str = getattr(given, name) or getattr(row, name)
    if not value:
        raise _open(row, f"the {name.replace('_', ' ')}", flag, hint)
    return value


def _open(row: BenchmarkRow, what: str, flag: str, hint: str = "") -> ArgumentError:
    return ArgumentError(flag, f"{row.source} does not say {what}; pass {flag}{hint}")


def _first(first: int | None, second: int | None) -> int | None:
    return second if first is None else first
