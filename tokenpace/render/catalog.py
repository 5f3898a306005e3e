"""Devices, architectures, cost models and measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tokenpace.render import text
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized

    from rich.console import RenderableType
    from rich.table import Table

    from tokenpace.v1 import catalog_pb2


def devices(answer: catalog_pb2.ListDevicesResponse) -> RenderableType:
    """Returns one line for each device."""
    rows = text.table(
        "name",
        "device",
        "memory",
        "bandwidth",
        "source",
        "rows",
        right=("memory", "bandwidth", "rows"),
    )
    for device in answer.devices:
        rows.add_row(
            device.name,
            device.display_name,
            text.size(device.memory_bytes) if device.memory_bytes else text.NONE,
            _rate(device.bandwidth_bytes_per_second, "B/s") or text.NONE,
            _provenance(device.provenance),
            f"{device.measurement_count}",
        )
    return Group(rows, *more(answer.devices, answer.total_size, answer.next_page_token))


def device(answer: catalog_pb2.GetDeviceResponse) -> RenderableType:
    """Returns all that is known of a device."""
    it = answer.device
    pairs = [
        ("name", it.name),
        ("device", it.display_name),
        ("kind", f"{it.kind}, {'in this machine' if it.local else 'not in this machine'}"),
        ("memory", text.size(it.memory_bytes) if it.memory_bytes else ""),
        ("bandwidth", _rate(it.bandwidth_bytes_per_second, "B/s")),
        (
            "last-level cache",
            text.size(it.last_level_cache_bytes) if it.last_level_cache_bytes else "",
        ),
        ("link", f"{it.link_name} {_rate(it.link_bytes_per_second, 'B/s')}".strip()),
    ]
    pairs.extend(
        (f"peak {_precision(peak.precision)}", _rate(peak.flops_per_second, "FLOP/s"))
        for peak in it.peaks
    )
    pairs += [
        ("figures from", it.source),
        ("data sheet", it.data_sheet),
        ("best answer", _provenance(it.provenance)),
        ("cost model", it.cost_model),
        ("rows", f"{it.measurement_count}"),
    ]
    if it.HasField("telemetry"):
        pairs += _telemetry(it.telemetry)
    if it.HasField("environment"):
        environment = it.environment
        pairs += [
            ("torch", environment.torch_version),
            ("transformers", environment.transformers_version),
            ("CUDA", environment.cuda_version),
            ("driver", environment.driver_version),
            ("threads", f"{environment.threads or ''}"),
            ("platform", environment.platform),
            ("fingerprint", environment.fingerprint),
        ]
    return text.pairs(pairs)


def architectures(answer: catalog_pb2.ListArchitecturesResponse) -> RenderableType:
    """Returns one line for each preset."""
    figures = ("parameters", "active", "layers", "hidden", "heads", "ffn", "experts")
    rows = text.table("name", *figures, right=figures)
    for it in answer.architectures:
        rows.add_row(
            it.name,
            text.parameters(it.parameter_count),
            text.parameters(it.active_parameter_count),
            f"{it.layer_count}",
            f"{it.hidden_size}",
            f"{it.query_heads}/{_kv_heads(it)}",
            f"{it.experts.intermediate_size or it.intermediate_size}",
            f"{it.experts.per_token}/{it.experts.count}" if it.experts.count else text.NONE,
        )
    return Group(rows, *more(answer.architectures, answer.total_size, answer.next_page_token))


def architecture(answer: catalog_pb2.GetArchitectureResponse) -> RenderableType:
    """Returns all dimensions of a model."""
    it = answer.architecture
    traits = (
        ("plain feed-forward", it.plain_mlp),
        ("tied embeddings", it.tied_embeddings),
        ("QKV bias", it.qkv_bias),
        ("attention output bias", it.attention_output_bias),
        ("feed-forward bias", it.mlp_bias),
        ("QK norm", it.qk_norm),
        ("attention output gate", it.attention_output_gate),
        ("head bias", it.head_bias),
    )
    window = f"{it.sliding_window} tokens"
    if it.sliding_window and it.full_attention_interval:
        window += f", every {it.full_attention_interval}th layer without"
    return text.pairs(
        [
            ("name", it.name),
            ("family", it.model_type),
            ("parameters", f"{it.parameter_count:,} ({text.parameters(it.parameter_count)})"),
            ("active a token", f"{it.active_parameter_count:,}" if it.experts.count else ""),
            ("layers", f"{it.layer_count}"),
            ("hidden size", f"{it.hidden_size}"),
            ("query heads", f"{it.query_heads}"),
            ("KV heads", _kv_heads(it)),
            ("head dim", f"{it.head_dim or it.hidden_size // max(1, it.query_heads)}"),
            ("intermediate size", f"{it.intermediate_size}"),
            ("experts", _experts(it)),
            ("latent attention", _latent(it)),
            ("sparse attention", _sparse(it)),
            ("linear attention", _linear(it)),
            ("vocabulary", f"{it.vocab_size}"),
            ("activation", text.enum(types_pb2.Activation, "ACTIVATION_", it.activation)),
            ("norm", text.enum(types_pb2.Norm, "NORM_", it.norm)),
            ("norms per layer", f"{it.norms_per_layer or 2}"),
            ("sliding window", window if it.sliding_window else ""),
            ("learned positions", f"{it.learned_positions or ''}"),
            ("traits", ", ".join(name for name, present in traits if present)),
            ("source", it.source),
        ]
    )


def _kv_heads(it: types_pb2.Architecture) -> str:
    return "latent" if it.HasField("latent_attention") else f"{it.kv_heads or it.query_heads}"


def _experts(it: types_pb2.Architecture) -> str:
    if not it.HasField("experts"):
        return ""
    experts = it.experts
    parts = [f"{experts.per_token} of {experts.count}, {experts.intermediate_size} wide"]
    if experts.shared_intermediate_size:
        parts.append(f"shared ones {experts.shared_intermediate_size} wide")
    if experts.leading_dense_layers:
        parts.append(f"{experts.leading_dense_layers} dense layers")
    if experts.interval > 1:
        parts.append(f"in every {experts.interval}th layer")
    return ", ".join(parts)


def _latent(it: types_pb2.Architecture) -> str:
    if not it.HasField("latent_attention"):
        return ""
    latent = it.latent_attention
    query = f", queries {latent.query_rank}" if latent.query_rank else ""
    return (
        f"latent {latent.kv_rank}{query}, rotary part {latent.rope_dim},"
        f" values {latent.value_dim or it.head_dim}"
    )


def _sparse(it: types_pb2.Architecture) -> str:
    if not it.HasField("sparse_attention"):
        return ""
    sparse = it.sparse_attention
    return f"{sparse.top_k} keys, picked by {sparse.index_heads} heads of {sparse.index_head_dim}"


def _linear(it: types_pb2.Architecture) -> str:
    if not it.HasField("linear_attention"):
        return ""
    linear = it.linear_attention
    return (
        f"{linear.key_heads} key heads of {linear.key_dim},"
        f" {linear.value_heads} value heads of {linear.value_dim},"
        f" all but every {it.full_attention_interval}th layer"
    )


def cost_models(answer: catalog_pb2.ListCostModelsResponse) -> RenderableType:
    """Returns one line for each cost model and the scores of those in use."""
    if not answer.cost_models:
        return Text("no cost model yet; make one with: tokenpace profile")
    rows = text.table("id", "device", "fitted", "rows", "in use", right=("rows",))
    for it in answer.cost_models:
        rows.add_row(
            it.id,
            it.device,
            text.time(it, "create_time"),
            f"{it.measurement_count}",
            "yes" if it.current else "no",
        )
    parts: list[RenderableType] = [rows]
    for it in answer.cost_models:
        if it.current:
            parts += [Text(f"\nerror of {it.id} on what it had not seen"), scores(it.scores)]
    return Group(*parts, *more(answer.cost_models, answer.total_size, answer.next_page_token))


def cost_model(it: catalog_pb2.CostModel) -> RenderableType:
    """Returns a cost model with its scores."""
    return Group(
        text.pairs(
            [
                ("cost model", it.id),
                ("device", it.device),
                ("fitted", text.time(it, "create_time")),
                ("rows", f"{it.measurement_count}"),
                ("in use", "yes" if it.current else "no"),
                ("precisions", ", ".join(_precision(p) for p in it.precisions)),
                ("engines", ", ".join(it.engines)),
                ("fingerprint", it.fingerprint),
            ]
        ),
        Text("\nerror on what it had not seen"),
        scores(it.scores),
    )


def scores(found: Iterable[catalog_pb2.ValidationScore]) -> Table:
    """Returns the cross-validated error and coverage by kind and precision."""
    figures = ("rows", "groups", "median", "mean", "p90", "coverage")
    rows = text.table("kind", "precision", *figures, right=figures)
    for score in found:
        rows.add_row(
            score.kind
            if score.engine in {"", "transformers"}
            else f"{score.kind} ({score.engine})",
            _precision(score.precision),
            f"{score.rows}",
            f"{score.groups}",
            text.percent(score.median_error),
            text.percent(score.mean_error),
            text.percent(score.p90_error),
            text.percent(score.coverage),
        )
    return rows


def measurements(answer: catalog_pb2.ListMeasurementsResponse) -> RenderableType:
    """Returns one line for each measurement."""
    rows = text.table(
        "id", "kind", "precision", "shape", "ms", "p10 to p90", "flags", right=("id", "ms")
    )
    for it in answer.measurements:
        rows.add_row(
            f"{it.id}",
            it.kind,
            _precision(it.precision),
            " ".join(f"{name}={value:g}" for name, value in sorted(it.shape.items())),
            text.figure(it.latency_ms.median),
            text.spread(it.latency_ms),
            " ".join(it.flags),
        )
    return Group(rows, *more(answer.measurements, answer.total_size, answer.next_page_token))


def more(shown: Sized, total: int, token: str) -> list[Text]:
    """Returns the line that tells of further pages; none where there is none."""
    if not token:
        return []
    return [Text(f"\n{len(shown)} of {total} shown; more: --page-token {token}")]


def _telemetry(it: catalog_pb2.Telemetry) -> list[tuple[str, str]]:
    def optional(field: str, unit: str) -> str:
        return f"{text.figure(getattr(it, field))} {unit}" if it.HasField(field) else ""

    def switch(field: str) -> str:
        return ("off", "on")[getattr(it, field)] if it.HasField(field) else ""

    return [
        ("in use", text.percent(it.utilization)),
        (
            "memory in use",
            f"{text.size(it.memory_used_bytes)} of {text.size(it.memory_total_bytes)}",
        ),
        ("temperature", optional("temperature_celsius", "°C")),
        ("power", optional("power_watts", "W")),
        ("clock", optional("clock_mhz", "MHz")),
        ("throttled by", ", ".join(it.throttle_reasons)),
        ("processes", ", ".join(it.processes)),
        ("memory errors", str(it.uncorrected_ecc_errors or "")),
        ("MIG", switch("mig_enabled")),
        ("persistence mode", switch("persistence_mode")),
    ]


def _rate(per_second: float, unit: str) -> str:
    return f"{text.count(per_second)}{unit}" if per_second else ""


def _precision(number: int) -> str:
    return text.enum(types_pb2.Precision, "PRECISION_", number)


def _provenance(number: int) -> str:
    return text.enum(types_pb2.Provenance, "PROVENANCE_", number).replace("-", " ")
