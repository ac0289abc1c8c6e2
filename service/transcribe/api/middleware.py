"""What happens to every request at the door: who is it, may it come in, and what is written down about it."""

import ipaddress
import time
from urllib.parse import urlsplit
from uuid import uuid4

from flask import Flask, Response, g, request

from transcribe import logs
from transcribe.api.context import Context
from transcribe.api.errors import ApiError
from transcribe.api.upload import SpoolingRequest

CHALLENGE = {"WWW-Authenticate": "Bearer"}
CORS_HEADERS = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Expose-Headers": "X-Request-Id, Retry-After",
    "Access-Control-Max-Age": "600",
}


def register(app: Flask, shared: Context) -> None:
    """Adds the checks before, and the headers, figures and log line after each request."""

    @app.before_request
    def enter() -> Response | None:
        g.began = time.monotonic()
        g.request_id = f"req_{uuid4().hex}"
        g.key_id = ""
        if not shared.keys.on:
            refuse_strangers(shared.config.cors.origins)
        if request.method == "OPTIONS" and request.headers.get("Origin") in shared.config.cors.origins:
            return Response(status=204)
        if request.path.startswith("/v1/"):
            g.key_id = _identified(shared)
        return None

    @app.after_request
    def leave(response: Response) -> Response:
        return _finished(shared, response)

    @app.teardown_request
    def tidy(_error: BaseException | None) -> None:
        if isinstance(request, SpoolingRequest):
            request.discard_spools()


def _identified(shared: Context) -> str:
    authorization = request.headers.get("Authorization")
    found = shared.keys.identify(authorization)
    if found is None:
        message = (
            "The API key is not valid." if authorization else "You must send an API key: Authorization: Bearer KEY."
        )
        raise ApiError(401, message, code="invalid_api_key", headers=CHALLENGE)
    return found


def refuse_strangers(origins: tuple[str, ...]) -> None:
    """Without keys the service is for this machine's own user. A web page that the user visits must not use it: neither
    from its own origin, nor by giving its name our address (DNS rebinding). Raises ApiError."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if not (_is_address(host) or host == "localhost" or host.endswith(".localhost")):
        message = "Without API keys this server only answers to localhost or an IP address; set auth.keys_file."
        raise ApiError(403, message, code="host_not_allowed")
    origin = request.headers.get("Origin")
    if origin and origin not in origins and urlsplit(origin).netloc != request.host:
        raise ApiError(
            403, "Pages of other origins may not use this server; see cors.origins.", code="origin_not_allowed"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _finished(shared: Context, response: Response) -> Response:
    seconds = time.monotonic() - g.began
    route = request.url_rule.rule if request.url_rule else "none"
    response.headers["X-Request-Id"] = g.request_id
    response.headers["OpenAI-Processing-Ms"] = str(round(seconds * 1000))
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    if (origin := request.headers.get("Origin")) and origin in shared.config.cors.origins:
        response.headers.update({**CORS_HEADERS, "Access-Control-Allow-Origin": origin})
        response.vary.add("Origin")
    method = request.method if request.method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
    shared.metrics.requests.labels(method, route, response.status_code).inc()
    shared.metrics.latency.labels(route).observe(seconds)
    if response.status_code >= 400:
        shared.metrics.errors.labels(response.status_code).inc()
    if route not in ("/health", "/ready", "/metrics") or response.status_code >= 500:
        about = {"request": g.request_id, "method": method, "route": route, "status": response.status_code}
        logs.event("request", **about, ms=round(seconds * 1000), bytes_in=request.content_length or 0)
    return response
