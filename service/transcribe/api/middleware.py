"""What happens around every request: access checks, response headers, metrics and one log line."""

import time
from uuid import uuid4

from flask import Flask, Response, g, request

from transcribe import logs
from transcribe.api.access import Access
from transcribe.api.context import AppContext
from transcribe.api.upload import SpoolingRequest


def register(app: Flask, shared: AppContext) -> None:
    """Adds the checks before, and the headers, figures and log line after each request."""
    access = Access(shared.keys, shared.config.cors.origins)

    @app.before_request
    def enter() -> Response | None:
        g.began = time.monotonic()
        g.request_id = f"req_{uuid4().hex}"
        g.key_id = ""
        headers = request.headers
        origin, host = headers.get("Origin"), headers.get("Host")
        preflight = request.method == "OPTIONS" and bool(access.cors_headers(origin, None))
        path = "" if preflight else request.path
        g.key_id = access.check(path, host=host, origin=origin, authorization=headers.get("Authorization"))
        return Response(status=204) if preflight else None

    @app.after_request
    def leave(response: Response) -> Response:
        return _finished(shared, access, response)

    @app.teardown_request
    def tidy(_error: BaseException | None) -> None:
        if isinstance(request, SpoolingRequest):
            request.discard_spools()


def _finished(shared: AppContext, access: Access, response: Response) -> Response:
    seconds = time.monotonic() - g.began
    route = request.url_rule.rule if request.url_rule else "none"
    response.headers["X-Request-Id"] = g.request_id
    response.headers["OpenAI-Processing-Ms"] = str(round(seconds * 1000))
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    requested = request.headers.get("Access-Control-Request-Headers")
    if cors := access.cors_headers(request.headers.get("Origin"), requested):
        response.headers.update(cors)
    method = request.method if request.method in ("GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"
    shared.metrics.requests.labels(method, route, response.status_code).inc()
    shared.metrics.latency.labels(route).observe(seconds)
    if response.status_code >= 400:
        shared.metrics.errors.labels(response.status_code).inc()
    if route not in ("/health", "/ready", "/metrics") or response.status_code >= 500:
        about = {"request": g.request_id, "method": method, "route": route, "status": response.status_code}
        logs.event("request", **about, ms=round(seconds * 1000), bytes_in=request.content_length or 0)
    return response
