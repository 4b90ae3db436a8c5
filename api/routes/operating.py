"""What operators do: models, retrains, rollbacks, hidden items, erasing users."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Annotated, TypeVar

import anyio
from fastapi import APIRouter, Path, Request, Response

from api.problems import Kind, ProblemError, without_places
from api.purchases import now_ms
from api.routes.common import ItemId, UserId, answer, problems
from api.routes.purchases import ensure_taken
from api.security import Role, guarded
from api.services import Services, services_of
from recsys.api_schemas import (
    ForgetAccepted,
    HiddenItem,
    Models,
    Retrain,
    RetrainRequest,
    RetrainState,
    RollbackAccepted,
)
from recsys.data.event import Event, EventType
from recsys.errors import InvalidModel, MalformedEvent
from recsys.logger import logger
from recsys.operations.model_versions import kept_models, summary
from recsys.redis import Store
from recsys.redis.trainer_requests import RollbackRequest
from recsys.storage.rounds import RoundLog, RoundRecord

T = TypeVar("T")
log = logger(__name__)
router = APIRouter(prefix="/v1", route_class=guarded(Role.OPERATE))
_MODELS_SHOWN, _ROUNDS_SHOWN = 100, 20
_MOST_REQUESTS = 2**53
Number = Annotated[int, Path(ge=1, le=_MOST_REQUESTS, description="The number that POST /v1/retrains returned.")]
Version = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,64}$", description="A version that GET /v1/models lists.")]


async def _in_thread(services: Services, work: Callable[[], T]) -> T:
    """Do what may take its time without holding up other requests."""
    return await anyio.to_thread.run_sync(work, limiter=services.operating)


@router.get(
    "/models", response_model=Models, responses=problems(), tags=["operators"], summary="Models and the last rounds"
)
async def models(request: Request) -> Response:
    """Return the newest models that are kept, up to 100, and the last rounds of the trainer, the newest first."""
    services = services_of(request)

    def found() -> Response:
        data_dir = services.data_dir
        listed = [
            {"version": version, **({} if manifest is None else summary(manifest)), "role": role}
            for version, role, manifest in kept_models(data_dir, live=_live(services.store), most=_MODELS_SHOWN)
        ]
        rounds = [
            {**record.model_dump(mode="json"), "error": without_places(record.error)}
            for record in islice(data_dir.rounds.newest_first(), _ROUNDS_SHOWN)
        ]
        return answer({"models": listed, "rounds": rounds})

    return await _in_thread(services, found)


@router.post(
    "/retrains",
    status_code=202,
    response_model=Retrain,
    responses=problems(413),
    tags=["operators"],
    summary="Ask for a new model",
)
async def post_retrain(request: Request, wanted: RetrainRequest | None = None) -> Response:
    """Ask the running trainer for a round; GET the address in Location returns the progress."""
    services = services_of(request)
    force = wanted is not None and wanted.force

    def asked() -> int:
        _ensure_trainer(services.store)
        return services.store.trainer.request(force=force)

    number = await _in_thread(services, asked)
    found = Retrain(id=number, state=RetrainState.WAITING)
    return answer(found.model_dump(mode="json"), 202, {"Location": f"/v1/retrains/{number}"})


@router.get(
    "/retrains/{id}",
    response_model=Retrain,
    responses=problems(404),
    tags=["operators"],
    summary="Progress and result of a retrain",
)
async def retrain(request: Request, id: Number) -> Response:
    """Return the progress of a retrain that was requested here or by `recsys retrain`."""
    services = services_of(request)
    found = await _in_thread(services, partial(_retrain, services, id))
    if found is None:
        raise ProblemError(Kind.UNKNOWN_RETRAIN, f"there is no retrain {id}; POST /v1/retrains requests one")
    return answer(found.model_dump(mode="json"))


def _retrain(services: Services, number: int) -> Retrain | None:
    requests = services.store.trainer.requests()
    if number > requests.requested:
        return None
    if number > requests.finished:
        status = services.store.trainer.status()
        if status.get("request", 0) < number:
            return Retrain(id=number, state=RetrainState.WAITING)
        # One that is no longer running has ended just now; its outcome comes next.
        progress = {name: status[name] for name in ("stage", "done", "total") if name in status}
        return Retrain.model_validate({"id": number, "state": RetrainState.RUNNING, **progress})
    record = served_by(services.data_dir.rounds, number)
    if record is not None:
        return Retrain(
            id=number,
            state=RetrainState(record.state),
            version=record.version,
            error=without_places(record.error),
            reasons=[] if record.gate is None else record.gate.reasons,
        )
    outcome = services.store.trainer.outcome()  # of a round that left no record, for there was nothing to train on
    if outcome.get("request", 0) >= number and outcome.get("state") == "failed":
        return Retrain(id=number, state=RetrainState.FAILED, error=without_places(str(outcome.get("error", ""))))
    return Retrain(id=number, state=RetrainState.UNKNOWN)


def served_by(rounds: RoundLog, number: int) -> RoundRecord | None:
    """Return the round that served a request: the first with this number or a higher one.

    Numbers start again when Redis is emptied: only the newest records whose numbers do not rise into the past count.
    """
    found: RoundRecord | None = None
    last = _MOST_REQUESTS
    for record in rounds.newest_first():
        if record.kind != "retrain":
            continue
        if record.request < number or record.request > last:
            break
        found, last = record, record.request
    return found


@router.post(
    "/models/{version}/rollback",
    status_code=202,
    response_model=RollbackAccepted,
    responses=problems(404),
    tags=["operators"],
    summary="Make an earlier model live again",
)
async def rollback(request: Request, version: Version) -> Response:
    """Have the trainer make an earlier model live and refresh every list; GET /v1/models shows when it is done."""
    services = services_of(request)
    caller = request.state.caller

    def asked() -> str:
        try:
            services.data_dir.models.manifest(version)
        except InvalidModel as error:
            log.warning(
                "rollback_refused", "no rollback: {error}", error=error
            )  # where models are is not for the network
            raise ProblemError(
                Kind.UNKNOWN_MODEL, f"model {version} is not there or damaged; GET /v1/models lists those that are kept"
            ) from None
        _ensure_trainer(services.store)
        live = _live(services.store)
        services.store.trainer.request_rollback(RollbackRequest(version, live, caller.name or "operator"))
        return live

    live = await _in_thread(services, asked)
    return answer({"version": version, "live_before": live}, 202, {"Location": "/v1/models"})


@router.put(
    "/items/{item_id}/hidden",
    response_model=HiddenItem,
    responses=problems(),
    tags=["operators"],
    summary="Hide an item from all lists",
)
async def hide(request: Request, item_id: ItemId) -> Response:
    """Hide an item: in answers of the API at once, in lists in Redis when they are refreshed."""
    return await _set_hidden(services_of(request), item_id, True)


@router.delete(
    "/items/{item_id}/hidden",
    response_model=HiddenItem,
    responses=problems(),
    tags=["operators"],
    summary="Show a hidden item again",
)
async def unhide(request: Request, item_id: ItemId) -> Response:
    """Show a hidden item again; lists have it again when they are refreshed."""
    return await _set_hidden(services_of(request), item_id, False)


async def _set_hidden(services: Services, item_id: str, hidden: bool) -> Response:
    catalogue = services.store.catalogue
    await _in_thread(services, partial(catalogue.hide if hidden else catalogue.unhide, item_id))
    await _in_thread(services, services.live.look_now)
    return answer({"item_id": item_id, "hidden": hidden, "known": services.knows(item_id)})


@router.delete(
    "/users/{user_id}",
    status_code=202,
    response_model=ForgetAccepted,
    responses=problems(),
    tags=["operators"],
    summary="Erase a user",
)
async def forget(request: Request, user_id: UserId) -> Response:
    """Publish a `forget`: the consumer erases history and lists, the trainer's next round the archived events."""
    services = services_of(request)
    sink = ensure_taken(services.sink)
    services.posted.spend(request.state.caller.name)
    try:
        services.store.users.ensure_can_hold(user_id)
    except MalformedEvent as error:
        raise ProblemError(Kind.INVALID_REQUEST, error.reason) from None
    event = Event(user_id=user_id, type=EventType.FORGET, timestamp=now_ms())
    if not (await sink.deliver([event]))[0]:
        raise ProblemError(Kind.KAFKA_UNAVAILABLE, "Kafka did not confirm the forget; send it again")
    return answer({"user_id": user_id}, 202)


def _live(store: Store) -> str:
    try:
        pointer = store.pointer.read()
    except InvalidModel as error:
        log.warning("pointer_unreadable", "{error}", error=error)
        return ""
    return "" if pointer is None else pointer.version


def _ensure_trainer(store: Store) -> None:
    if not store.trainer.is_alive():
        raise ProblemError(
            Kind.NO_TRAINER, "start one with python -m trainer; it carries out requests", headers={"Retry-After": "10"}
        )
