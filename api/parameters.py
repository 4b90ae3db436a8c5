"""Parameters of paths and queries in one go: FastAPI goes over them piece by piece, which takes a sixth of a request.

Requests whose parameters are right are answered that way. All others are left to FastAPI, which says what is wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, get_origin, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError, create_model

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def read_at_once(route: APIRoute, otherwise: Handler) -> Handler:
    """Return a handler that reads the parameters of a route and calls its function.

    Parameters
    ----------
    route : APIRoute
        Of a coroutine that returns a `Response` and takes the request, and values of the path and the query alone; any
        other is left to ``otherwise`` altogether.
    otherwise : callable
        FastAPI's handler: for requests whose parameters break a rule.
    """
    takes = route.dependant
    hints = get_type_hints(route.endpoint, include_extras=True)
    others = [*takes.header_params, *takes.cookie_params, *takes.body_params, *takes.dependencies]
    if others or takes.request_param_name is None or hints.get("return") is not Response:
        return otherwise
    names = [*(one.name for one in takes.path_params), *(one.name for one in takes.query_params)]
    if {*names, takes.request_param_name, "return"} != hints.keys():
        return otherwise
    defaults = inspect.signature(route.endpoint).parameters
    fields: dict[str, Any] = {
        name: hints[name] if (default := defaults[name].default) is inspect.Parameter.empty else (hints[name], default)
        for name in names
    }
    read, queried = create_model("Parameters", **fields), [one.name for one in takes.query_params]
    repeated = {name for name in queried if _is_list(read, name)}
    endpoint: Callable[..., Coroutine[Any, Any, Response]] = route.endpoint
    request_name = takes.request_param_name

    async def handler(request: Request) -> Response:
        given: dict[str, Any] = dict(request.path_params)
        if request.scope["query_string"]:
            query = request.query_params
            given |= {
                name: query.getlist(name) if name in repeated else query[name] for name in queried if name in query
            }
        try:
            values = read.__pydantic_validator__.validate_python(given)
        except ValidationError:
            return await otherwise(request)
        return await endpoint(**{request_name: request}, **values.__dict__)

    return handler


def _is_list(model: type[BaseModel], name: str) -> bool:
    annotation = model.model_fields[name].annotation
    return any(get_origin(one) is list for one in (annotation, *getattr(annotation, "__args__", ())))
