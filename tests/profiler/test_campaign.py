"""Campaigns measure some of each kind within their time, go on where they were, and end early."""

import itertools
import time
from collections import Counter
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

import profiler.campaign
import profiler.track
import profiler.warm_up
from model.measurement import Measurement
from model.precision import Precision
from profiler.campaign import Campaign, other_groups, step_error
from profiler.design import Design, Space
from profiler.device import Device
from profiler.interface import CampaignRequest, DeviceLostError, Skipped
from profiler.models import ModelPoint
from profiler.numerics import InaccurateError
from profiler.operations import AttentionPoint, LinearPoint
from profiler.paged_kernels import GatherKernel, PagedKernels
from profiler.points import Measured
from profiler.process_limits import is_out_of_memory
from profiler.timing import THROTTLED_FLAG, CaptureError

TINY = Space(
    hidden=(64, 256),
    ranks=(1, 2),
    vocab=(128, 512),
    kv_tokens=64,
    model_bytes=(4e5, 1e6),
    flops=1e8,
    bytes=1e6,
)
CPU = Device("cpu", 1 << 16)


def request(budget_s=300.0, done=(), target_error=0.0, precisions=(Precision.FP32,), **changes):
    return CampaignRequest(
        device="cpu",
        budget_s=budget_s,
        reserve_s=0.0,
        target_error=target_error,
        precisions=precisions,
        done=tuple(done),
        **changes,
    )


def now():
    """Seconds of the clock that campaigns read."""
    return profiler.campaign.time.monotonic()


def campaign(device=CPU, **changes):
    return Campaign(request(**changes), device, now(), TINY)


def run(device=CPU, **changes):
    """Runs a campaign; returns what it measured, what it skipped and how long it took."""
    begin = now()
    events = list(campaign(device, **changes).run())
    measured = [event for event in events if isinstance(event, Measurement)]
    skipped = [event for event in events if isinstance(event, Skipped)]
    return measured, skipped, now() - begin


def plan(patch, group, share=None, **base_points):
    """Changes a group's share, and how many points of each kind come first; models take a second
    here."""
    kinds = getattr(profiler.campaign, group)
    changed = tuple(
        replace(
            kind,
            base_points=base_points.get(kind.name, kind.base_points),
            first_guess_s=min(kind.first_guess_s, 1.5),
        )
        for kind in kinds.kinds
    )
    share = kinds.share if share is None else share
    patch.setattr(profiler.campaign, group, replace(kinds, kinds=changed, share=share))


def point_of(row):
    return (row.kind, row.precision, *sorted(row.shape.items()))


KINDS = {"linear", "attention", "layer", "prefill", "decode"}


@pytest.fixture(scope="module")
def measured():
    """The first measurements of a campaign, up to some of each kind."""
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        plan(patch, "DENSE")
        for event in campaign().run():
            assert isinstance(event, Measurement), event
            rows.append(event)
            counts = Counter(row.kind for row in rows)
            if counts["decode"] >= 2 and counts["linear"] >= 15:
                break
    return rows


def test_each_kind_gets_its_turn_early(measured):
    assert {row.kind for row in measured} == KINDS
    assert all(row.latency_ms.median > 0 for row in measured)
    assert {row.precision for row in measured} == {Precision.FP32}


def test_it_ends_by_its_budget_and_a_point(ticking):
    rows, _, seconds = run(budget_s=1.5)
    assert rows
    assert seconds < 1.5 + 0.5


def test_nothing_is_measured_twice(measured):
    alone = [row for row in measured if row.kind in {"linear", "attention"}]
    counts = Counter(point_of(row) for row in alone)
    # Points of a design may share a shape by chance.
    assert sum(count > 1 for count in counts.values()) <= 0.2 * len(counts)


def test_it_goes_on_where_it_was_cut_off(measured, ticking):
    cut = measured[: len(measured) // 2]
    again, _, _ = run(budget_s=1.6, done=cut)
    before, after = ({point_of(row) for row in rows} for rows in (cut, again))
    assert not {point for point in before & after if point[0] == "attention"}
    # A weight matrix may come again, with other rows; it is then measured whole.
    linears = [
        {("linear", Precision.FP32, ("k", p.k), ("m", m), ("n", p.n)) for m in p.rows}
        for p in itertools.islice(Design(TINY, 0).linears(), 200)
    ]
    following = [rows for rows in linears if not rows <= before]
    assert {point for point in after if point[0] == "linear"} <= set().union(*following)
    assert following[0] <= after


def test_other_attentions_of_measured_heads_are_measured_all_the_same(synthetic_device, ticking):
    design = Design(TINY, 0)
    points = list(itertools.islice(design.attentions(), 30))
    group = Counter(p.group for p in points).most_common(1)[0][0]
    alike = [p for p in points if p.group == group]
    assert len(alike) > 1
    done = [attention_row(synthetic_device(), p) for p in points if p is not alike[-1]]
    measured, _, _ = run(budget_s=1.0, done=done)
    (kept,) = [row for row in measured if row.kind == "attention" and row.group == group][:1]
    assert kept.shape["kv_tokens"] == alike[-1].kv_tokens


def test_other_precisions_count_for_themselves(measured, ticking):
    other, _, _ = run(budget_s=1.4, done=measured, precisions=(Precision.BF16,))
    assert {row.precision for row in other} == {Precision.BF16}
    first = next(Design(TINY, 0).linears())
    assert other[0].group == first.group


@pytest.mark.parametrize("error", [InaccurateError("fp32: off"), CaptureError("a graph: off")])
def test_what_computes_something_else_or_fits_no_graph_is_left_out_and_said(
    monkeypatch, ticking, error
):
    def wrong(*arguments):
        raise error

    monkeypatch.setattr("profiler.operations.check", wrong)
    rows, skipped, _ = run(budget_s=1.2)
    assert {row.kind for row in rows} == {"attention"}
    assert all(str(error) in event.reason for event in skipped)
    assert skipped


def test_without_time_nothing_is_measured():
    assert run(budget_s=0.0)[0] == []
    begin = time.monotonic() - 100.0
    assert list(Campaign(request(budget_s=50.0), CPU, begin, TINY).run()) == []


def test_progress_is_the_share_of_the_time(ticking):
    begun = campaign(budget_s=1.2)
    assert begun.fraction < 0.5
    fractions = [begun.fraction for _ in begun.run()]
    assert fractions == sorted(fractions)
    assert 0 < fractions[-1] <= 1.0
    assert begun.text.startswith("fp32: ")


# --- experts and latent attention ----------------------------------------------------


MIXTURE_KINDS = {"experts", "mla", "batched_linear"}
OTHER_KINDS = MIXTURE_KINDS | {"static_attention"}


def shorten(patch):
    """A campaign's plan with few points, and whose long campaigns are short."""
    plan(patch, "DENSE", linear=1, attention=1, model=1)
    plan(patch, "MIXTURES", share=50.0, experts=2, latent=4, mixture=1)
    plan(patch, "PLAIN", share=50.0, static_attention=3, plain_model=1, plain_mixture=1)
    patch.setattr(profiler.campaign, "OTHERS_FROM_S", 300.0)


TURNED = 18
"""Rows by which such a campaign has turned to more than dense models, if it is long."""


@pytest.fixture
def short(monkeypatch):
    shorten(monkeypatch)


WHOLES = {"layer", "prefill", "decode"}


def has_all(rows):
    """Whether a long campaign has measured some of all there is."""
    whole = [row for row in rows if row.kind in WHOLES]
    return (
        {row.kind for row in rows} >= KINDS | OTHER_KINDS
        and {row.kind for row in whole if "experts" in row.shape} == WHOLES
        and {row.kind for row in whole if row.engine == "torch"} == WHOLES
    )


@pytest.fixture(scope="module")
def mixed():
    """What a long campaign measures up to some of all there is."""
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        for event in campaign(budget_s=600.0).run():
            assert isinstance(event, Measurement), event
            rows.append(event)
            if has_all(rows):
                return rows
    raise AssertionError(Counter(row.kind for row in rows))


def test_a_long_campaign_measures_more_behind_dense_models_of_transformers(mixed):
    kinds = [row.kind for row in mixed]
    first = min(kinds.index(kind) for kind in OTHER_KINDS)
    assert first < TURNED
    assert not any("experts" in row.shape for row in mixed[:first])
    assert {row.engine for row in mixed[:first]} == {"transformers"}
    assert set(kinds[:first]) == KINDS


def test_what_is_measured_behind_them_is_not_measured_twice(short, mixed):
    again = list(itertools.islice(campaign(budget_s=600.0, done=mixed).run(), 40))
    before, after = ({point_of(row) for row in each} for each in (mixed, again))
    alone = {point for point in after if point[0] in OTHER_KINDS}
    # Points of a design may share a shape by chance.
    assert len(alone & before) <= 0.2 * len(alone) > 0


@pytest.mark.parametrize(
    ("budget_s", "precisions"),
    [(299.0, (Precision.FP32,)), (600.0, (Precision.BF16,)), (299.0, (Precision.FP8,))],
    ids=["short", "other precision", "short fp8"],
)
def test_other_campaigns_stay_with_dense_models(short, budget_s, precisions):
    rows = []
    for event in campaign(budget_s=budget_s, precisions=precisions).run():
        rows.append(event)
        if len(rows) >= TURNED:
            break
    assert len(rows) == TURNED
    assert not (OTHER_KINDS | {"linear_per_tensor"}) & {row.kind for row in rows}
    assert not any("experts" in row.shape for row in rows)
    assert {row.engine for row in rows} == {"transformers"}


def fp8_linears(points, done=()):
    """What a long campaign measures up to linears of so many points with one scale for all."""
    rows = []
    precisions = (Precision.FP8, Precision.INT8)
    for event in campaign(budget_s=600.0, done=done, precisions=precisions).run():
        assert isinstance(event, Measurement), event
        rows.append(event)
        scaled = [row for row in rows if row.kind == "linear_per_tensor"]
        if len(scaled) == sum(len(point.rows) for point in points):
            break
    return rows, scaled


def test_a_long_campaign_measures_fp8_by_both_of_its_scalings(short, monkeypatch):
    plan(monkeypatch, "PER_TENSOR", linear_per_tensor=3)
    one, two, three = itertools.islice(Design(TINY, 0).linears(), 3)
    rows, scaled = fp8_linears((one, two))
    assert {row.precision for row in scaled} == {Precision.FP8}
    first = rows.index(scaled[0])
    assert first < TURNED
    assert {row.kind for row in rows[:first]} == KINDS
    assert Precision.INT8 not in {row.precision for row in rows[:first]}
    # Another campaign of the device goes on where this one ended.
    _, following = fp8_linears((three,), done=rows)
    shapes = [{"m": m, "n": p.n, "k": p.k} for p in (one, two, three) for m in p.rows]
    assert [row.shape for row in (*scaled, *following)] == shapes


def test_attention_over_pages_is_measured_where_a_library_attends_to_them(monkeypatch):
    usual = [kind.name for group in other_groups(CPU) for kind in group.kinds]
    assert "paged_attention" not in usual
    installed = PagedKernels({"vllm": GatherKernel, "torch": GatherKernel})
    monkeypatch.setattr(profiler.campaign, "installed_kernels", lambda _: installed)
    others = [kind.name for group in other_groups(CPU) for kind in group.kinds]
    assert others == [*usual, "paged_attention"]


def test_a_library_that_does_not_load_is_told_of_and_ends_no_campaign(monkeypatch):
    def load():
        raise ImportError("undefined symbol")

    kernels = PagedKernels({"vllm": load, "torch": GatherKernel})
    monkeypatch.setattr("profiler.paged_attention.installed_kernels", lambda _: kernels)
    shorten(monkeypatch)
    plan(monkeypatch, "PAGED", paged_attention=3)
    paged = profiler.campaign.PAGED
    monkeypatch.setattr(profiler.campaign, "other_groups", lambda _: (paged,))
    events = []
    for event in campaign(budget_s=600.0).run():
        events.append(event)
        if sum(getattr(each, "kind", "") == "paged_attention" for each in events) == 3:
            break
    (said,) = (event for event in events if isinstance(event, Skipped))
    assert said.reason == "paged_attention by vllm is left out: ImportError: undefined symbol"
    assert {event.engine for event in events[-3:]} == {"torch"}


# --- an end by error -------------------------------------------------------------


def attention_row(device, point):
    return device.attention(
        point.sequences,
        point.query_tokens,
        point.kv_tokens,
        point.query_heads,
        point.kv_heads,
        point.head_dim,
    )


@pytest.fixture
def base(monkeypatch, synthetic_device):
    """A base of few points, and what a synthetic device makes of it."""
    few = {"linear": 8, "attention": 16, "model": 4}
    plan(monkeypatch, "DENSE", **few)
    device, design = synthetic_device(seed=1), Design(TINY, 0)
    rows = [
        device.linear(m, point.n, point.k, point.kind)
        for point in itertools.islice(design.linears(), few["linear"])
        for m in point.rows
    ]
    points = itertools.islice(design.attentions(), few["attention"])
    rows += [attention_row(device, point) for point in points]
    for point in itertools.islice(design.models(), few["model"]):
        forwards = [(f.sequences, f.query_tokens, f.kv_tokens) for f in point.forwards]
        runs = [(g.sequences, g.input_tokens, g.output_tokens) for g in point.generates]
        rows += device.model(point.architecture, forwards, runs)
    return rows


def test_it_ends_when_the_error_is_small_enough(base, ticking):
    measured, _, seconds = run(done=base, target_error=0.3)
    assert measured == []
    assert seconds < 30.0


def test_it_goes_on_while_the_error_is_too_large(base):
    begun = campaign(done=base, target_error=1e-9)
    assert isinstance(next(begun.run()), Measurement)


@pytest.mark.parametrize("design_only", [False, True])
def test_the_cost_model_chooses_unless_the_design_is_to(base, monkeypatch, design_only):
    asked = []

    def first_ones(cost_model, candidates, precision, count):
        asked.append(len(candidates))
        return list(range(count))

    monkeypatch.setattr(profiler.track, "most_telling", first_ones)
    begun = campaign(done=base, design_only=design_only)
    assert isinstance(next(begun.run()), Measurement)
    assert bool(asked) is not design_only


def test_an_unfinished_base_is_finished_first(base):
    missing = [row for row in base if row.kind != "attention"]
    begun = campaign(done=missing, target_error=0.3)
    assert any(row.kind == "attention" for row in begun.run())


def test_the_error_is_that_of_whole_steps(base):
    from model.training import fit_cost_model

    cost_model = fit_cost_model(base)
    errors = {score.kind: score.median_error for score in cost_model.scores}
    assert step_error(cost_model, Precision.FP32) == max(errors["prefill"], errors["decode"])
    assert np.isnan(step_error(cost_model, Precision.BF16))


# --- memory ------------------------------------------------------------------------


class FullDevice(Device):
    """A device with hardly any memory left."""

    __slots__ = ()
    free = 0

    def free_bytes(self):
        return self.free


def test_points_too_large_for_the_memory_are_skipped_with_the_reason(ticking):
    FullDevice.free = 2_500_000
    measured, skipped, _ = run(FullDevice("cpu", 1 << 16), budget_s=7.0)
    assert measured
    assert skipped
    assert all("GB free" in event.reason for event in skipped)


def test_where_nothing_fits_the_campaign_ends_and_says_why(ticking):
    FullDevice.free = 1_000
    measured, skipped, seconds = run(FullDevice("cpu", 1 << 16))
    assert measured == []
    assert 1 <= len(skipped) <= 100
    assert seconds < 30.0
    ends = [event.reason for event in skipped if "in a row" in event.reason]
    assert len(ends) == 3
    assert "linears in fp32: nothing of 10 in a row was measured" in ends


HUGE = AttentionPoint(1, 1, 10**13, 8, 8, 64)


def test_an_allocation_that_fails_is_told_from_a_fault():
    with pytest.raises(RuntimeError) as raised:
        list(HUGE.measure(Precision.FP32, CPU))
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_point_that_runs_out_of_memory_is_skipped_and_others_go_on(monkeypatch):
    real = AttentionPoint.measure
    monkeypatch.setattr(AttentionPoint, "measure", lambda _, *rest: real(HUGE, *rest))
    measured, skipped = [], []
    for event in campaign().run():
        (measured if isinstance(event, Measurement) else skipped).append(event)
        if skipped and isinstance(event, Measurement):
            break
    assert isinstance(event, Measurement)
    assert "linear" in {row.kind for row in measured}
    assert "attention" not in {row.kind for row in measured}
    assert all("allocate memory" in event.reason for event in skipped)


def out_of_memory_beyond(monkeypatch, kind, holds):
    """Makes memory run out for the points of a kind that it does not hold; returns those tried."""
    real, tried = kind.measure, []

    def measure(point, *rest):
        tried.append(point)
        return real(point if holds(point) else HUGE, *rest)

    monkeypatch.setattr(kind, "measure", measure)
    return tried


def events_until_remark(**changes):
    """What a campaign tells up to the first point that was left out or made smaller."""
    events = []
    for event in campaign(**changes).run():
        events.append(event)
        if isinstance(event, Skipped):
            break
    return events


def test_a_point_that_runs_out_of_memory_is_made_smaller_and_both_sizes_are_told(monkeypatch):
    tried = out_of_memory_beyond(
        monkeypatch, AttentionPoint, lambda p: p.sequences * p.kv_tokens <= 16
    )
    *_, measured, said = events_until_remark()
    asked, smaller = next((p for p in tried if p.kv_tokens * p.sequences > 16), None), tried[-1]
    assert measured.shape == {name: float(size) for name, size in asdict(smaller).items()}
    assert 8 < smaller.sequences * smaller.kv_tokens <= 16
    assert said.reason.startswith(
        f"{asked.group}: asked for {asked.sizes}, measured {smaller.sizes}: out of memory ("
    )
    assert (
        tried[tried.index(asked) :] == [asked, *halvings(asked)][: len(tried) - tried.index(asked)]
    )


def halvings(point):
    """All that a point can be made, the largest first."""
    while (point := point.halved(Precision.FP32, Measured([]))) is not None:
        yield point


def test_a_point_that_is_estimated_to_need_too_much_is_made_smaller(monkeypatch):
    first = next(Design(TINY, 0).linears())
    smaller = next(halvings(first))
    bound = smaller.needed_bytes(Precision.FP32, CPU)
    assert bound < first.needed_bytes(Precision.FP32, CPU)
    monkeypatch.setattr(FullDevice, "free", bound / 0.8 + 1)
    events = events_until_remark(device=FullDevice("cpu", 1 << 16))
    assert [event.shape["m"] for event in events[:-1]] == list(smaller.rows)
    assert f"asked for {first.sizes}, measured {smaller.sizes}: out of" in events[-1].reason


def test_a_smaller_point_is_not_measured_again(monkeypatch):
    first = next(Design(TINY, 0).linears())
    smaller = next(halvings(first))
    done = list(smaller.measure(Precision.FP32, CPU))
    bound = smaller.needed_bytes(Precision.FP32, CPU)
    monkeypatch.setattr(FullDevice, "free", bound / 0.8 + 1)
    (said,) = events_until_remark(device=FullDevice("cpu", 1 << 16), done=done)
    assert said.reason.startswith(f"{first.group}: needs ")


def test_of_a_point_whose_last_rows_memory_does_not_hold_the_first_are_kept(monkeypatch):
    real = LinearPoint.measure

    def measure(point, precision, device):
        for row in real(point, precision, device):
            if row.shape["m"] > 8:
                raise MemoryError
            yield row

    monkeypatch.setattr(LinearPoint, "measure", measure)
    first = next(Design(TINY, 0).linears())
    assert first.rows == (1, 2, 4, 8, 16)
    *measured, said = events_until_remark()
    # Half as many are measured already.
    assert [event.shape["m"] for event in measured] == [1, 2, 4, 8]
    assert said.reason == f"{first.group}: out of memory"


def test_a_fault_ends_the_campaign(monkeypatch):
    def fail(point, precision, device):
        raise RuntimeError("an illegal memory access was encountered")
        yield

    monkeypatch.setattr(AttentionPoint, "measure", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run()


def test_the_first_point_of_a_campaign_is_the_designs(measured):
    first = next(Design(TINY, 0).linears())
    assert isinstance(first, LinearPoint)
    assert [row.shape["m"] for row in measured[: len(first.rows)]] == list(first.rows)


def test_what_was_measured_hot_is_marked(monkeypatch):
    heat = itertools.cycle([(), ("thermal slowdown (hardware)",)])
    monkeypatch.setattr(profiler.campaign, "held_down_by", lambda device: next(heat))
    events = itertools.islice(campaign(budget_s=60.0).run(), 4)
    assert [THROTTLED_FLAG in event.flags for event in events] == [False, True] * 2


class Gpu(Device):
    """Computes on the CPU, and says that it is a GPU."""

    is_cuda = True
    torch_device = "cpu"
    is_lost = False

    def free_bytes(self):
        return 1 << 30

    def synchronize(self):
        if self.is_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


def failing(error):
    def measure(point, precision, device):
        raise error
        yield

    return measure


@pytest.mark.parametrize(
    "error", [RuntimeError("No execution plans support the graph"), ValueError("scale_a: strides")]
)
def test_a_shape_that_a_gpu_has_no_kernel_for_is_left_out_and_said(monkeypatch, error):
    monkeypatch.setattr(profiler.warm_up, "warm_up", lambda device: None)
    monkeypatch.setattr(LinearPoint, "measure", failing(error))
    events = campaign(Gpu("cuda:0", 1 << 16), budget_s=60.0).run()
    assert str(error) in next(event for event in events if isinstance(event, Skipped)).reason


def test_a_gpu_whose_context_is_lost_ends_the_campaign_and_names_the_point(monkeypatch):
    monkeypatch.setattr(profiler.warm_up, "warm_up", lambda device: None)
    monkeypatch.setattr(LinearPoint, "measure", failing(RuntimeError("CUDA error: unspecified")))
    monkeypatch.setattr(Gpu, "is_lost", True)
    first = next(Design(TINY, 0).linears())
    with pytest.raises(DeviceLostError, match="illegal memory access") as raised:
        list(campaign(Gpu("cuda:0", 1 << 16), budget_s=60.0).run())
    assert raised.value.group == first.group


def test_a_point_that_took_the_device_with_it_is_not_tried_again():
    first, second = itertools.islice(Design(TINY, 0).linears(), 2)
    row = next(campaign(avoided=(first.group,)).run())
    assert first.group != second.group == row.group


def test_a_kind_that_always_fails_ends_alone(monkeypatch, ticking):
    """Libraries may raise anything on a GPU."""
    monkeypatch.setattr(profiler.warm_up, "warm_up", lambda device: None)
    real = LinearPoint.measure
    monkeypatch.setattr(LinearPoint, "measure", lambda point, p, _: real(point, p, CPU))
    monkeypatch.setattr(AttentionPoint, "measure", failing(KeyError("arch_list")))
    plan(monkeypatch, "DENSE", linear=3, attention=20, model=0)
    events = list(campaign(Gpu("cuda:0", 1 << 16), budget_s=12.0).run())
    reasons = [event.reason for event in events if isinstance(event, Skipped)]
    failed = [reason for reason in reasons if "arch_list" in reason]
    assert len([reason for reason in failed if reason.startswith("attention")]) == 10
    assert "attentions in fp32: nothing of 10 in a row was measured" in reasons
    last = max(i for i, e in enumerate(events) if isinstance(e, Skipped) and "arch" in e.reason)
    assert any(getattr(event, "kind", "") == "linear" for event in events[last:])


@pytest.mark.parametrize(
    ("budget_s", "capability", "found"),
    [
        (600.0, (9, 0), {Precision.BF16, Precision.FP8}),
        (600.0, (8, 0), {Precision.BF16}),
        (1_200.0, (8, 0), {Precision.BF16, Precision.FP16, Precision.FP32}),
    ],
)
def test_a_gpus_short_campaign_measures_the_formats_that_models_are_served_in(
    monkeypatch, budget_s, capability, found
):
    monkeypatch.setattr(profiler.warm_up, "warm_up", lambda device: None)
    seen = set()

    def measure(point, precision, device):
        seen.add(precision)
        raise CaptureError("none")
        yield

    for kind in (LinearPoint, AttentionPoint, ModelPoint):
        monkeypatch.setattr(kind, "measure", measure)
    monkeypatch.setattr(profiler.campaign, "other_groups", lambda device: ())
    gpu = Gpu("cuda:0", 1 << 16, capability=capability)
    list(campaign(gpu, budget_s=budget_s, precisions=()).run())
    assert seen == found


def test_a_fit_that_fails_leaves_the_one_before(base, monkeypatch):
    begun = campaign(done=base)
    assert isinstance(next(begun.run()), Measurement)
    before = begun._cost_model
    assert before is not None

    def fail(*rows):
        raise RuntimeError("maximum number of iterations reached")

    monkeypatch.setattr("model.training.fit_cost_model", fail)
    monkeypatch.setattr(begun, "_fitted_at", -np.inf)
    assert begun._refreshed() is before


@pytest.fixture
def gpu(monkeypatch):
    """A campaign of linears on what says that it is a GPU; the clock that its idle time is told
    by, and when it was warmed up."""
    clock, warmed = SimpleNamespace(now=0.0), []
    plan(monkeypatch, "DENSE", linear=0)
    dense = profiler.campaign.DENSE
    linears = tuple(kind for kind in dense.kinds if kind.name == "linear")
    monkeypatch.setattr(profiler.campaign, "DENSE", replace(dense, kinds=linears))
    real = LinearPoint.measure
    monkeypatch.setattr(LinearPoint, "measure", lambda point, p, _: real(point, p, CPU))
    monkeypatch.setattr(profiler.warm_up, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(profiler.warm_up, "warm_up", lambda device: warmed.append(clock.now))
    begun = campaign(Gpu("cuda:0", 1 << 16), budget_s=300.0, design_only=True)
    return SimpleNamespace(events=begun.run(), campaign=begun, clock=clock, warmed=warmed)


def test_a_gpu_is_warmed_up_where_a_campaign_begins_and_behind_a_pause(gpu):
    for _ in range(7):  # one point has five rows
        gpu.clock.now += 0.5
        next(gpu.events)
    assert gpu.warmed == [0.5]
    gpu.clock.now += 1.5  # the daemon may pause it between two rows
    next(gpu.events)
    assert gpu.warmed == [0.5, 5.0]


def test_a_gpu_is_warmed_up_behind_a_fit(gpu, monkeypatch):
    real = Campaign._fit

    def fit(self):
        gpu.clock.now += 2.0  # it is idle meanwhile
        return real(self)

    monkeypatch.setattr(Campaign, "_fit", fit)
    monkeypatch.setattr(gpu.campaign, "_design_only", False)
    first = next(Design(TINY, 0).linears())
    for _ in first.rows:
        next(gpu.events)
    assert len(gpu.warmed) == 2
    next(gpu.events)
    assert gpu.warmed[2:] == [gpu.clock.now]


@pytest.mark.parametrize("error", [RuntimeError("a fault"), ValueError("a fault")])
def test_what_fails_on_the_cpu_is_a_fault_of_ours(monkeypatch, error):
    monkeypatch.setattr(LinearPoint, "measure", failing(error))
    with pytest.raises(type(error), match="a fault"):
        list(campaign(budget_s=60.0).run())
