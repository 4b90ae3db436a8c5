"""Types of the settings' values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

Positive = Annotated[int, Field(gt=0)]


NotEmpty = Annotated[str, Field(min_length=1)]


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _port_or_any(value: object) -> object:
    """Check here, so that one line names the setting: pydantic would say what is wrong for each type of the union."""
    if value == "any" or (isinstance(value, int | str) and str(value).isdecimal() and int(value) <= 65535):
        return value if value == "any" else int(value)
    raise ValueError("must be a port up to 65535, 0 for none, or any for one that is free")


MetricsPort = Annotated[int | Literal["any"], BeforeValidator(_port_or_any)]
