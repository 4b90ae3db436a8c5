"""Whether the service lives and can serve, and what it has counted."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.routes.common import answer, problems
from api.security import Role, guarded
from api.services import services_of
from recsys.api_schemas import Health
from recsys.errors import RedisUnavailable

router = APIRouter()
metrics_router = APIRouter(route_class=guarded(Role.READ))


@router.get(
    "/livez",
    responses={503: problems()[503]},
    tags=["health"],
    summary="Whether the process is alive",
    response_model=dict[str, bool],
)
async def livez() -> Response:
    """Answer; a supervisor that gets no answer, or 503 because nothing becomes free, should restart the process."""
    return answer({"alive": True})


@router.get(
    "/readyz",
    response_model=Health,
    responses={503: {"model": Health, "description": "Something is missing."}},
    tags=["health"],
    summary="Whether the service can serve",
)
async def readyz(request: Request) -> Response:
    """Return whether Redis answers, with all histories, a model is loaded and, for purchases, Kafka answers."""
    services = services_of(request)
    redis_answers = True
    try:
        await services.reader.ping()
    except RedisUnavailable:
        redis_answers = False
    missing, model = services.missing(redis=redis_answers), services.live.model
    version = "" if model is None else model.stamp.version
    body = {"ready": not missing, "missing": missing, "model": version}
    return answer(body, 503 if missing else 200, {"Retry-After": "1"} if missing else None)


@metrics_router.get(
    "/metrics",
    responses={**problems(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
    tags=["health"],
    summary="Metrics for Prometheus",
)
async def metrics(request: Request) -> Response:
    """Return what all workers have counted."""
    return Response(services_of(request).metrics.text(), media_type="text/plain; version=0.0.4")
