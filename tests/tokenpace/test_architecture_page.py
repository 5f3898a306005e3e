"""What `tokenpace architectures MODEL` and the head of an answer tell of a model's blocks."""

from io import StringIO

import pytest
from rich.console import Console

from tokenpace.render import catalog, latency
from tokenpace.v1 import catalog_pb2, latency_pb2, types_pb2

LINEAR = types_pb2.Architecture(
    name="hybrid",
    query_heads=16,
    kv_heads=2,
    full_attention_interval=4,
    attention_output_gate=True,
    linear_attention=types_pb2.LinearAttention(
        key_heads=16, value_heads=32, key_dim=128, value_dim=96, conv_width=4
    ),
)
SPARSE = types_pb2.Architecture(
    name="sparse",
    latent_attention=types_pb2.LatentAttention(kv_rank=512),
    sparse_attention=types_pb2.SparseAttention(top_k=2048, index_heads=64, index_head_dim=128),
)


def text_of(renderable):
    console = Console(file=StringIO(), width=200)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("architecture", "told", "untold"),
    [
        (
            LINEAR,
            (
                "16 key heads of 128, 32 value heads of 96, all but every 4th layer",
                "attention output gate",
            ),
            ("sparse attention", "sliding window"),
        ),
        (SPARSE, ("2048 keys, picked by 64 heads of 128",), ("linear attention", "gate")),
    ],
)
def test_a_model_tells_its_attentions(architecture, told, untold):
    text = text_of(
        catalog.architecture(catalog_pb2.GetArchitectureResponse(architecture=architecture))
    )
    assert all(part in text for part in told)
    assert not any(part in text for part in untold)


def test_an_answer_tells_the_precision_of_experts_alone():
    resolved = types_pb2.Resolved(device="h100-sxm", precision=types_pb2.PRECISION_BF16)
    resolved.kv_cache_precision = types_pb2.PRECISION_BF16
    plain = latency_pb2.PredictResponse(resolved=resolved)
    assert "experts" not in text_of(latency.prediction(plain, 0.9))
    resolved.experts_precision = types_pb2.PRECISION_FP4
    answer = latency_pb2.PredictResponse(resolved=resolved)
    assert "bf16, experts fp4" in text_of(latency.prediction(answer, 0.9))
