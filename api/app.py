"""The application: `create_app` makes it, its lifespan opens what the routes need."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

import recsys
from api.bodies import Bodies
from api.connections import Connections
from api.guard import Guard
from api.key_watch import KeyWatch
from api.live import Live
from api.metrics import ApiMetrics
from api.problems import install
from api.protocol import CONNECTIONS
from api.purchases import PurchaseSink
from api.rates import RateLimiter
from api.routes import computing, docs, health, operating, purchases, reading
from api.security import Audit, Keyring, Role
from api.services import Services
from recsys.api_schemas import Problem
from recsys.errors import RedisError
from recsys.kafka.cleanup_policy import PolicyWatch
from recsys.kafka.readings import event_reading
from recsys.logger import logger
from recsys.operations.check_watch import checks_of
from recsys.redis import EvictionWatch, Service, Store, open_store
from recsys.redis.async_reader import open_read_store
from recsys.redis.heartbeat import heartbeat
from recsys.runtime.logs import RepeatsLeftOut, configure_logging
from recsys.settings import Settings, load_settings
from recsys.storage.data_dir import open_data_dir

ROUTERS = (
    reading.router,
    computing.router,
    purchases.router,
    operating.router,
    health.router,
    health.metrics_router,
)
log = logger(__name__)
_OBJECTS_BEFORE_COLLECTION = 50_000
_LARGE_BULKS = 2
_COMPUTING_THREADS = 4
_OPERATING_THREADS = 4
_LOGS_OF_REQUESTS = ("uvicorn.error", "api.guard", "api.lists", "api.problems")
_REPEATED_EVERY_S = 60.0
_DESCRIPTION = """Recommendations for apps that do not speak Redis.

Lists are read from Redis as consumer and trainer wrote them. Errors are `application/problem+json` (RFC 9457) with a
`type` that never changes. Ids in paths are percent-encoded, also a slash in them."""


def app_of_this_process() -> FastAPI:
    """Make the application of a worker, by the settings in its environment."""
    settings = load_settings()
    configure_logging(settings.log)
    _leave_repeats_out()
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    return create_app(settings)


def _leave_repeats_out() -> None:
    """Bound the lines that requests can cause, whoever sends them."""
    for name in _LOGS_OF_REQUESTS:
        logging.getLogger(name).addFilter(RepeatsLeftOut(every_s=_REPEATED_EVERY_S))


def _say_missing_rights(store: Store) -> None:
    try:
        store.connection.ensure_rights(Service.API)
    except RedisError as error:
        log.warning("right_missing", "{error}", error=error)


def _collect_rarely() -> None:
    """Look for cycles less often: a bulk of lists makes thousands of objects, none of them in one."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 20, 20)


def _end_with(parent: BaseProcess) -> None:
    """Stop when the process is gone that started this worker, and would stop it: nobody else could."""
    parent.join()
    log.warning("parent_ended", "the process that started this worker has ended")
    os.kill(os.getpid(), signal.SIGTERM)


def create_app(settings: Settings) -> FastAPI:
    """Make the application.

    Raises
    ------
    SettingsError
        When keys or the audit file cannot be read or written.
    """
    audit, metrics = Audit(settings.api.audit_file), ApiMetrics()
    keyring = _watched_keyring(settings, metrics)
    connections = _connections(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        timeout_s = settings.api.redis_timeout_ms / 1000
        async with open_read_store(settings.redis, timeout_s=timeout_s, on_away=metrics.outages.inc) as reader:
            with ExitStack() as stack:
                keyring.say_what_to_mend()
                store = stack.enter_context(open_store(settings))
                await to_thread.run_sync(_say_missing_rights, store)
                data_dir = open_data_dir(settings)
                evictions = EvictionWatch(settings.redis, lambda found: metrics.evictions.note(*found))
                watching = evictions.running()
                watching.__enter__()  # starts a thread; leaving waits for it
                stack.push(watching.__exit__)
                live = Live(settings, store, data_dir)
                following = live.followed()
                await to_thread.run_sync(following.__enter__)
                stack.push(following.__exit__)
                sink = None
                if settings.api.purchases:
                    sink = PurchaseSink(settings.kafka, on_silence=metrics.kafka_silent.set)
                    stack.enter_context(sink.opened())
                    stack.enter_context(PolicyWatch(settings.kafka, metrics.topic_compacted.set))
                services = app.state.services = Services(
                    settings=settings,
                    event_reading=event_reading(settings.events),
                    reader=reader,
                    store=store,
                    data_dir=data_dir,
                    live=live,
                    sink=sink,
                    keyring=keyring,
                    rates=RateLimiter(settings.api.rate_limit),
                    posted=RateLimiter(
                        settings.api.event_limit / 60,
                        at_once=settings.api.event_limit,
                        allowed=f"{settings.api.event_limit:,} events per minute are allowed",
                    ),
                    audit=audit,
                    metrics=metrics,
                    large=asyncio.Semaphore(_LARGE_BULKS),
                    computing=CapacityLimiter(_COMPUTING_THREADS),
                    operating=CapacityLimiter(_OPERATING_THREADS),
                )
                stack.enter_context(heartbeat(store, services.facts))
                stack.enter_context(checks_of(settings, Service.API, metrics.checks.note).running())
                _collect_rarely()
                yield {CONNECTIONS: connections}  # for api.protocol

    app = FastAPI(
        title="recsys",
        version=recsys.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in ROUTERS:
        app.include_router(router)
    _describe_security(app)
    docs.add_docs(app)
    install(app, allowed_methods)
    if settings.api.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match"],
            expose_headers=["ETag", "Retry-After", "Warning"],
        )
    app.add_middleware(
        Guard,
        metrics=metrics,
        bodies=Bodies.of(settings.api, connections.note_ended),
        max_concurrency=settings.api.max_concurrency,
    )
    return app


def _connections(settings: Settings, metrics: ApiMetrics) -> Connections:
    return Connections(
        settings.api.max_connections,
        settings.api.max_connections_per_address,
        settings.api.client_timeout_s,
        metrics.connections,
        metrics.connections_ended,
    )


def _watched_keyring(settings: Settings, metrics: ApiMetrics) -> Keyring:
    watch = KeyWatch(on_use=metrics.note_key_used, on_refused=lambda why: metrics.refused_keys.labels(why).inc())
    keyring = Keyring.of(settings.api, watch=watch)
    for entry, at_s in keyring.ends():
        metrics.note_key_ends(entry, at_s)
    return keyring


def _describe_security(app: FastAPI) -> None:
    """Have the OpenAPI document say which role an address needs, and what problems look like."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = described()
        components = document.setdefault("components", {})
        components.setdefault("securitySchemes", {})["key"] = {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of `RECSYS_API__KEYS`. Without any, programs on the API's own machine may read.",
        }
        schemas = components.setdefault("schemas", {})
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs", {}))
        schemas["Problem"] = problem
        schemas.update(purchases.EVENT_SCHEMAS)
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for method, path, role in guarded_routes():
            operation = document["paths"][path][method.lower()]
            operation["security"] = [{"key": []}]
            operation["description"] += f"\n\nNeeds the role `{role.name.lower()}`."
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def guarded_routes() -> Iterator[tuple[str, str, Role]]:
    """Yield method, path and needed role of every address that needs one."""
    for router in ROUTERS:
        role = getattr(router.route_class, "role", None)
        if isinstance(role, Role):
            for route in router.routes:
                if isinstance(route, APIRoute):
                    yield from ((method, route.path, role) for method in sorted(route.methods or ()))


def allowed_methods(path: str) -> list[str]:
    """Return what an address takes; several routes may share it."""
    return sorted(
        {
            method
            for router in ROUTERS
            for route in router.routes
            if isinstance(route, APIRoute) and route.path_regex.match(path)
            for method in route.methods or ()
        }
    )
