"""Rows that cannot be right, or look wrong."""

import pytest

from model.analytical import AnalyticalCostModel
from model.calibration import Correction, Observed, Point, deployment_of
from model.composite import CompositeCostModel
from model.hardware import data_sheet
from model.inference import predict
from model.plausibility import Measured, doubtful, impossible
from model.precision import Precision
from model.presets import preset
from model.steps import Question
from model.workload import Parallelism, Workload

SHEET = data_sheet("h100-sxm")


def row(
    load=4,
    version="0.11",
    sheet=SHEET,
    factor=1.0,
    model="llama-3.1-8b",
    precision=Precision.BF16,
    **figures,
):
    question = Question(
        architecture=preset(model),
        workload=Workload(input_tokens=2000, output_tokens=200, concurrency=load),
        parallelism=Parallelism(),
        precision=precision,
        kv_precision=Precision.BF16,
        engine="vllm",
    )
    analytical = AnalyticalCostModel(SHEET, "vllm")
    composite = CompositeCostModel(None, analytical, precision, Precision.BF16, "vllm")
    answer = predict(question, composite, with_breakdown=True)
    own = {"ttft": answer.ttft_ms.value * factor, "tpot": answer.tpot_ms.value * factor}
    return Measured(
        point=Point(
            deployment=deployment_of(question, "h100-sxm"), question=question, inference=answer
        ),
        figures=own | figures,
        sheet=sheet,
        engine_version=version,
    )


def codes(remarks):
    return [remark.code for remark in remarks]


def test_what_was_predicted_raises_no_doubt():
    rows = [row(load) for load in (1, 4, 16, 64)]
    assert impossible(rows) == []
    assert doubtful(rows, {}) == []


def test_weights_are_read_no_faster_than_the_bandwidth():
    """16 GB at 3.35 TB/s are 4.8 ms."""
    rows = [row(), row(1, tpot=3.0), row(2, tpot=2.0)]
    (remark,) = impossible(rows)
    assert (remark.code, remark.rows) == ("FASTER_THAN_BANDWIDTH", (1, 2))
    assert "2 ms" in remark.text
    assert impossible([row(1, tpot=4.9)]) == []


def test_weights_in_fp8_are_read_no_faster_either():
    """8 GB at 3.35 TB/s are 2.4 ms."""
    (remark,) = impossible([row(1, precision=Precision.FP8, tpot=1.0)])
    assert remark.code == "FASTER_THAN_BANDWIDTH"
    assert impossible([row(1, precision=Precision.FP8, tpot=2.4)]) == []


def test_a_prompt_is_multiplied_no_faster_than_the_peak():
    """2 x 8e9 x 2000 FLOPs at 989 TFLOP/s are 32 ms."""
    (remark,) = impossible([row(1, ttft=15.0)])
    assert (remark.code, remark.rows) == ("FASTER_THAN_COMPUTE", (0,))
    assert "prefix cache" in remark.text
    assert impossible([row(1, ttft=35.0)]) == []


def test_a_device_of_unknown_rates_judges_nothing():
    assert impossible([row(1, sheet=None, ttft=0.1, tpot=0.1)]) == []


@pytest.mark.parametrize(("figure", "factor"), [("tpot", 1.3), ("ttft", 2.0)])
def test_one_setting_has_one_latency(figure, factor):
    first = row()
    near = row(**{figure: first.figures[figure] * factor * 0.99})
    far = row(**{figure: first.figures[figure] * factor * 1.01})
    assert impossible([first, near, row(8)]) == []
    (remark,) = impossible([row(8), first, far])
    assert (remark.code, remark.rows) == ("CONTRADICTION", (1, 2))


def test_other_versions_do_not_contradict_but_are_pointed_out():
    first = row()
    other = row(version="0.12", tpot=first.figures["tpot"] * 1.5)
    assert impossible([first, other]) == []
    assert "ENGINE_VERSIONS_MIXED" in codes(doubtful([first, other], {}))


def test_queues_and_few_rows_are_pointed_out():
    rows = [row(), row(ttft=1e6), row(100_000)]
    found = {remark.code: remark.rows for remark in doubtful(rows, {})}
    assert found["MUCH_SLOWER_THAN_PREDICTED"] == (1,)
    assert found["SATURATED"] == (2,)
    assert found["FEW_ROWS"] == (0, 1, 2)
    assert "DOES_NOT_FIT" not in found


def test_rows_that_memory_has_no_room_for_are_pointed_out():
    rows = [row(), row(model="llama-3.1-405b")]
    found = {remark.code: remark.rows for remark in doubtful(rows, {})}
    assert found["DOES_NOT_FIT"] == (1,)
    assert "SATURATED" not in found


def test_a_row_that_all_others_speak_against_is_pointed_out():
    rows = [row(load) for load in (1, 2, 4, 8, 16, 32)]
    rows[2] = row(4, tpot=rows[2].figures["tpot"] * 4)
    correction = Correction(
        [
            Observed(
                point=it.point,
                predicted=it.point.inference.tpot_ms,
                measured=it.figures["tpot"],
            )
            for it in rows
        ],
        0.9,
    )
    (remark,) = doubtful(rows, {"tpot": correction.left_out})
    assert (remark.code, remark.rows) == ("OUTLIER", (2,))
