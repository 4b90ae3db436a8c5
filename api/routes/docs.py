"""The page that shows the API and tries it out; it loads nothing from elsewhere.

All of it is rendered once: whoever asks needs no key, so an answer must cost no more than its bytes.
"""

from __future__ import annotations

from importlib import resources

import orjson
from fastapi import FastAPI, Response

_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_START = """
window.onload = () => SwaggerUIBundle({
  url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null, persistAuthorization: false,
});
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>recsys: HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_HEADERS = {
    # Swagger UI sets styles from its script; everything else comes from here, and no page may frame this one.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def add_docs(app: FastAPI) -> None:
    """Add /docs and the files it needs, and the description of all addresses that the app has by now."""
    add_file(app, "/docs", "text/html", _PAGE.encode())
    add_file(app, "/docs/start.js", "text/javascript", _START.encode())
    folder = resources.files("fastapi_offline").joinpath("static")
    for name, kind in _FILES.items():
        add_file(app, f"/docs/{name}", kind, folder.joinpath(name).read_bytes())
    add_file(app, "/openapi.json", "application/json", orjson.dumps(app.openapi()))


def add_file(app: FastAPI, path: str, kind: str, content: bytes) -> None:
    """Answer an address with bytes that stay the same."""
    headers = {**_HEADERS, "Content-Type": kind if kind == "application/json" else f"{kind}; charset=utf-8"}

    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        return Response(content, headers=headers)
