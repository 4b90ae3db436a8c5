"""Hiding passwords in what people and logs are shown."""

from __future__ import annotations

import re


def masked_url(url: str) -> str:
    """Hide the password of a URL, wherever it stands."""
    scheme, separator, rest = url.rpartition("://")
    address, question, query = rest.partition("?")
    credentials, at, host = address.rpartition("@")
    if at:
        address = f"{credentials.partition(':')[0]}:***@{host}"
    query = re.sub(r"((?:password|passphrase|secret)[^=&]*=)[^&]*", r"\1***", query, flags=re.IGNORECASE)
    return f"{scheme}{separator}{address}{question}{query}"
