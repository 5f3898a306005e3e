"""LatencyService: predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2

from model.errors import InvalidFieldError
from server.errors import ServiceError, unimplemented
from tokenpace.v1 import latency_pb2, latency_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.predictor import Predictor

MAX_BATCH = 10_000


class LatencyService(latency_pb2_grpc.LatencyServiceServicer):
    """Answers what a model costs on a device, without running it.

    Args:
        predictor: answers single requests.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def Predict(  # noqa: N802 - gRPC's name
        self, request: latency_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> latency_pb2.PredictResponse:
        """Predicts one request."""
        return self._predictor.predict(request)

    def BatchPredict(  # noqa: N802 - gRPC's name
        self, request: latency_pb2.BatchPredictRequest, context: grpc.ServicerContext
    ) -> latency_pb2.BatchPredictResponse:
        """Predicts many; a request that cannot be answered yields an error in its place."""
        count = len(request.requests)
        if not 1 <= count <= MAX_BATCH:
            raise InvalidFieldError("requests", f"{count} requests are not in 1 to {MAX_BATCH:,}")
        response = latency_pb2.BatchPredictResponse()
        for question in request.requests:
            # Past its deadline a call is inactive, too.
            if not context.is_active():
                raise ServiceError(grpc.StatusCode.CANCELLED, "the caller went away")
            result = response.results.add()
            try:
                result.response.CopyFrom(self._predictor.predict(question))
            except ServiceError as error:
                result.error.CopyFrom(_batch_error(error))
        return response

    def Sweep(  # noqa: N802 - gRPC's name
        self, request: latency_pb2.SweepRequest, context: grpc.ServicerContext
    ) -> Iterator[latency_pb2.SweepResponse]:
        """Refuses: it is not built yet."""
        raise unimplemented(
            "SWEEP_NOT_BUILT", "Sweep is not built yet; BatchPredict answers up to 10,000 requests"
        )

    def Plan(  # noqa: N802 - gRPC's name
        self, request: latency_pb2.PlanRequest, context: grpc.ServicerContext
    ) -> latency_pb2.PlanResponse:
        """Refuses: it is not built yet."""
        raise unimplemented(
            "PLAN_NOT_BUILT", "Plan is not built yet; compare deployments with BatchPredict"
        )


def _batch_error(error: ServiceError) -> latency_pb2.BatchPredictError:
    fields = [
        violation.field
        for detail in error.details
        if isinstance(detail, error_details_pb2.BadRequest)
        for violation in detail.field_violations
    ]
    return latency_pb2.BatchPredictError(
        code=error.code.value[0], message=error.message, field=fields[0] if fields else ""
    )
