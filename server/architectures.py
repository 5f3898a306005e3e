"""Architectures as the API writes them, to the model's and back."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from model.architecture import Norm
from model.blocks import Activation
from model.dimensions import Dimensions, architecture_of_dimensions, dimensions_of
from model.errors import InvalidFieldError
from tokenpace.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.architecture import Architecture

_T = TypeVar("_T")

_ACTIVATIONS: dict[int, Activation] = {
    types_pb2.ACTIVATION_UNSPECIFIED: Activation.SILU,
    types_pb2.ACTIVATION_SILU: Activation.SILU,
    types_pb2.ACTIVATION_GELU: Activation.GELU,
    types_pb2.ACTIVATION_RELU: Activation.RELU,
}
_ACTIVATION_NUMBERS = {
    Activation.SILU: types_pb2.ACTIVATION_SILU,
    Activation.GELU: types_pb2.ACTIVATION_GELU,
    Activation.RELU: types_pb2.ACTIVATION_RELU,
}
_NORMS: dict[int, Norm] = {
    types_pb2.NORM_UNSPECIFIED: Norm.RMS,
    types_pb2.NORM_RMS: Norm.RMS,
    types_pb2.NORM_LAYER: Norm.LAYER,
}
_NORM_NUMBERS = {Norm.RMS: types_pb2.NORM_RMS, Norm.LAYER: types_pb2.NORM_LAYER}
_NESTED = {
    "experts": ("experts", "count"),
    "experts_per_token": ("experts", "per_token"),
    "expert_intermediate_size": ("experts", "intermediate_size"),
    "shared_intermediate_size": ("experts", "shared_intermediate_size"),
    "leading_dense_layers": ("experts", "leading_dense_layers"),
    "expert_interval": ("experts", "interval"),
    "expert_bias": ("experts", "bias"),
    "kv_rank": ("latent_attention", "kv_rank"),
    "query_rank": ("latent_attention", "query_rank"),
    "rope_dim": ("latent_attention", "rope_dim"),
    "value_dim": ("latent_attention", "value_dim"),
    "linear_key_heads": ("linear_attention", "key_heads"),
    "linear_value_heads": ("linear_attention", "value_heads"),
    "linear_key_dim": ("linear_attention", "key_dim"),
    "linear_value_dim": ("linear_attention", "value_dim"),
    "linear_conv_width": ("linear_attention", "conv_width"),
    "index_top_k": ("sparse_attention", "top_k"),
    "index_heads": ("sparse_attention", "index_heads"),
    "index_head_dim": ("sparse_attention", "index_head_dim"),
}
"""Dimensions that are a message within the message, and their field there."""
_REQUIRED = {
    "experts": "experts",
    "latent_attention": "kv_rank",
    "linear_attention": "linear_key_heads",
    "sparse_attention": "index_top_k",
}
"""Dimension without which a set inner message says nothing."""
_PLAIN = tuple(
    name
    for name in Dimensions.__annotations__
    if name not in _NESTED and name not in {"activation", "norm"}
)


@lru_cache(maxsize=512)
def architecture_message(architecture: Architecture) -> types_pb2.Architecture:
    """Returns an architecture as the API writes it; shared, so not to be changed."""
    dimensions = cast("dict[str, Any]", dimensions_of(architecture))
    message = types_pb2.Architecture(
        **{name: dimensions[name] for name in _PLAIN},
        activation=_ACTIVATION_NUMBERS[dimensions["activation"]],
        norm=_NORM_NUMBERS[dimensions["norm"]],
        parameter_count=architecture.parameter_count(),
        active_parameter_count=architecture.active_parameters(),
        model_type=architecture.model_type,
        source=architecture.source,
    )
    for name, (inner, field) in _NESTED.items():
        if dimensions[name]:
            setattr(getattr(message, inner), field, dimensions[name])
    return message


def architecture_of_message(message: types_pb2.Architecture) -> Architecture:
    """Returns the architecture of explicit dimensions.

    Raises:
        InvalidFieldError: they make none; the path begins with ``architecture``.
    """
    try:
        return _cached(message.SerializeToString(deterministic=True))
    except InvalidFieldError as error:
        path = ".".join(_NESTED.get(error.field, (error.field,)))
        raise InvalidFieldError(path, error.message).within("architecture") from None


def known_member(members: Mapping[int, _T], number: int, field: str) -> _T:
    """Returns what an enum's number stands for.

    Raises:
        InvalidFieldError: the enum has no such number.
    """
    if number not in members:
        raise InvalidFieldError(
            field, f"{number} is no value of this enum; the highest is {max(members)}"
        )
    return members[number]


@lru_cache(maxsize=512)
def _cached(serialised: bytes) -> Architecture:
    message = types_pb2.Architecture.FromString(serialised)
    dimensions: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN}
    for name, (inner, field) in _NESTED.items():
        if message.HasField(cast("Any", inner)):
            dimensions[name] = getattr(getattr(message, inner), field)
            if name == _REQUIRED[inner] and not dimensions[name]:
                raise InvalidFieldError(name, f"required with {inner}; is at least 1")
    return architecture_of_dimensions(
        **dimensions,
        activation=known_member(_ACTIVATIONS, message.activation, "activation"),
        norm=known_member(_NORMS, message.norm, "norm"),
    )
