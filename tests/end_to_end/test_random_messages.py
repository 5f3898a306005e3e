"""Random well-formed messages to every RPC: the daemon never fails at one."""

import functools
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.presets import preset_names
from tokenpace.v1 import catalog_pb2, latency_pb2, profiler_pb2

METHODS = {
    f"{service.name}.{method.name}": method
    for module, name in (
        (latency_pb2, "LatencyService"),
        (profiler_pb2, "ProfilerService"),
        (catalog_pb2, "CatalogService"),
    )
    for service in [module.DESCRIPTOR.services_by_name[name]]
    for method in service.methods
}
# These start a process, or a job that does: fewer of them, with budgets of at most 1 s.
MEASURING = {"Measure", "CreateProfileJob", "CreateSchedule"}
# These watch the processor for 50 ms, and few fields say what they are asked.
WATCHING = {"ListDevices", "GetDevice"}

INTS = st.sampled_from([0, 1, 2, 3, 8, 16, 128, -1, -(2**31), 2**31 - 1]) | st.integers(
    -(2**31), 2**31 - 1
)
LONGS = INTS | st.sampled_from([-(2**63), 2**63 - 1])
DOUBLES = st.sampled_from([0.0, 0.9, 1.0, 7e9, -1.0, 1e308, 5e-324]) | st.floats()
WORDS = st.sampled_from(
    ["", "local", "cpu", "h100-sxm", "vllm", "transformers", "linear", "* * * * *", "1", "\x00"]
) | st.text(max_size=12).filter(lambda text: text.isprintable() or "\x00" in text)
CONFIG_KEYS = st.sampled_from(
    ["model_type", "hidden_size", "num_hidden_layers", "vocab_size", "layer_types", "text_config"]
)
CONFIG_VALUES = st.sampled_from(["llama", "gpt2", "bert", 64, 2, 1.5, None, True, [], {}])
CONFIGS = st.dictionaries(CONFIG_KEYS, CONFIG_VALUES, max_size=2) | st.dictionaries(
    st.just("model_type"), st.just("llama"), min_size=1
)

BUDGETS = st.sampled_from(
    [
        Duration(seconds=1),
        Duration(seconds=1),
        Duration(nanos=900_000_000),
        Duration(nanos=1),
        Duration(seconds=-1),
        Duration(seconds=-(2**63), nanos=2**31 - 1),
    ]
)
# Never due within the test.
INTERVALS = st.builds(
    Duration,
    seconds=st.sampled_from([0, -1, 3_600, 10**6, 2**62]),
    nanos=st.sampled_from([0, 5, -5, 2**31 - 1]),
)
WILD = {
    FieldDescriptor.TYPE_INT32: INTS,
    FieldDescriptor.TYPE_INT64: LONGS,
    FieldDescriptor.TYPE_DOUBLE: DOUBLES,
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: WORDS,
    FieldDescriptor.TYPE_ENUM: st.integers(-1, 12) | st.just(2**31 - 1),
}
TAME = {
    FieldDescriptor.TYPE_INT32: st.sampled_from([0, 1, 2, 8]),
    FieldDescriptor.TYPE_INT64: st.sampled_from([0, 1]),
    FieldDescriptor.TYPE_DOUBLE: st.sampled_from([0.0, 0.5, 0.9]),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: st.just(""),
    FieldDescriptor.TYPE_ENUM: st.integers(0, 2),
}
TAME_BY_NAME = {
    "preset": st.sampled_from(preset_names()),
    "device": st.sampled_from(["", "local", "cpu", "h100-sxm", "a100-pcie"]),
    "name": st.sampled_from(["local", "cpu", "l4"]),
    "engine": st.sampled_from(["", "vllm", "transformers"]),
    "parameter_count": st.sampled_from([10**6, 7 * 10**9, 10**13]),
    "input_tokens": st.integers(1, 10_000) | st.just(16_777_216),
    "concurrency": st.sampled_from([0, 0, 1, 100, 1_048_576]),
    "prefill_chunk_tokens": st.sampled_from([0, 0, 1, 64]),
    "cached_prefix_tokens": st.just(0),
    "pipeline": st.sampled_from([1, 2]),
    "tensor": st.sampled_from([1, 1, 2, 3, 4_096]),
    "expert": st.just(1),
    "require_provenance": st.sampled_from([0, 0, 0, 1, 4]),
    "cron": st.sampled_from(["0 0 1 1 *", "0 0 30 2 *"]),
    "hidden_size": st.just(64),
    "layer_count": st.just(2),
    "query_heads": st.just(4),
    "kv_heads": st.sampled_from([0, 2]),
    "head_dim": st.sampled_from([0, 16]),
    "intermediate_size": st.just(64),
    "vocab_size": st.just(100),
    "norms_per_layer": st.sampled_from([0, 2, 4]),
    "full_attention_interval": st.just(0),
}
SMALL_BY_NAME = TAME_BY_NAME | {
    "preset": st.sampled_from(["smollm2-135m", "gpt2"]),
    "parameter_count": st.just(10**6),
    "input_tokens": st.sampled_from([1, 4]),
    "concurrency": st.just(0),
    "tensor": st.just(1),
    "device": st.sampled_from(["", "local", "cpu"]),
    "trace": st.just(False),
    "engine": st.sampled_from(["", "transformers"]),
    "target_error": st.just(0.5),
}
SIZES = st.dictionaries(
    st.sampled_from(["m", "n", "k", "sequences", "query_tokens", "kv_tokens", "novel", ""]),
    st.one_of(st.sampled_from([1.0, 64.0]), st.floats()),
    max_size=5,
)
"""Of measurements: the one field that is a map."""
# Never due within the test, and no size that takes a second by itself.
WILD_SMALL_BY_NAME = {
    "cron": st.sampled_from(["", "x", "61 * * * *", "* * * * * * *"]),
    "preset": st.sampled_from(["no-such-model", ""]),
}


@st.composite
def scalars(draw: st.DrawFn, field: FieldDescriptor, *, small: bool) -> Any:
    """A value that makes sense, or now and then any at all."""
    if draw(st.integers(0, 24)) == 24:
        wild = WILD[field.type]
        if small:
            wild = WILD_SMALL_BY_NAME.get(field.name, wild)
        return draw(wild)
    by_name = SMALL_BY_NAME if small else TAME_BY_NAME
    return draw(by_name.get(field.name, TAME[field.type]))


@st.composite
def structs(draw: st.DrawFn, kind: type[Message]) -> Message:
    message: Any = kind()
    for key, value in draw(CONFIGS).items():
        message[key] = value
    return message


@functools.cache
def messages_of(descriptor: Descriptor, *, small: bool = False) -> st.SearchStrategy[Any]:
    """Returns a strategy of messages in which any field may be set to anything."""
    kind = GetMessageClass(descriptor)
    if descriptor.full_name == "google.protobuf.Struct":
        return structs(kind)
    if descriptor.full_name == "google.protobuf.Duration":
        return BUDGETS if small else INTERVALS
    return filled(descriptor, kind, small=small)


@st.composite
def filled(draw: st.DrawFn, descriptor: Descriptor, kind: type[Message], *, small: bool) -> Message:
    message: Any = kind()
    oneofs = {oneof.name: draw(st.sampled_from(list(oneof.fields))) for oneof in descriptor.oneofs}
    for field in descriptor.fields:
        if field.containing_oneof and oneofs[field.containing_oneof.name] is not field:
            continue
        # Most fields are set: a request that lacks its model is refused at once.
        if draw(st.integers(0, 9)) == 9:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update(draw(SIZES))
        elif field.message_type is not None:
            strategy = (
                INTERVALS
                if field.name == "interval"
                else messages_of(field.message_type, small=small)
            )
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(strategy, max_size=3)))
            else:
                getattr(message, field.name).CopyFrom(draw(strategy))
        elif field.is_repeated:
            strategy = scalars(field, small=small)
            getattr(message, field.name).extend(draw(st.lists(strategy, max_size=3)))
        else:
            setattr(message, field.name, draw(scalars(field, small=small)))
    return message


@st.composite
def measuring(draw: st.DrawFn, method: MethodDescriptor) -> Message:
    """A request that measures for at most 1 s, whatever else it says."""
    message: Any = draw(messages_of(method.input_type, small=True))
    message.budget.CopyFrom(draw(BUDGETS))
    return message


def code_of(daemon: Any, method: MethodDescriptor, request: Message) -> str:
    answer_class = GetMessageClass(method.output_type)
    make = daemon.channel.unary_stream if method.server_streaming else daemon.channel.unary_unary
    call = make(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer_class.FromString,
    )
    try:
        answer = call(request, timeout=10)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        failed: Any = error
        return str(failed.code().name)
    return "OK"


@pytest.mark.parametrize("name", METHODS)
def test_no_message_makes_the_daemon_fail(daemon, name):
    method = METHODS[name]
    slow = method.name in MEASURING
    strategy = measuring(method) if slow else messages_of(method.input_type)

    @given(strategy)
    @settings(
        max_examples=6 if slow else 20 if method.name in WATCHING else 60,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def send(request):
        code = code_of(daemon, method, request)
        assert code not in {"INTERNAL", "UNKNOWN", "UNAVAILABLE"}, request
        if code == "UNIMPLEMENTED":  # and not for want of a service
            assert method.name in {"Sweep", "Plan", "Measure"}

    send()
    assert daemon.process.poll() is None
    assert "Traceback" not in daemon.log.read_text()
