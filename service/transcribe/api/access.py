"""Who may use the server. Decided from the headers, so that the body of an unauthorized request is never read."""

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from transcribe.api.auth import Keys
from transcribe.api.errors import ApiError

CHALLENGE = {"WWW-Authenticate": "Bearer"}
DEFAULT_CORS_REQUEST = "Authorization, Content-Type"
EXPOSED = (
    "X-Request-Id, Retry-After, X-Should-Retry, X-Transcribe-Model, X-Transcribe-Record, X-Transcribe-Warnings,"
    " OpenAI-Processing-Ms, Location"
)
HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]+(\s*,\s*[A-Za-z0-9_-]+)*")


class Access:
    """The rules of one server: its keys, and the origins whose pages may call it."""

    def __init__(self, keys: Keys, origins: tuple[str, ...]) -> None:
        self.keys = keys
        self.origins = {origin.lower().rstrip("/") for origin in origins}

    def check(self, path: str, *, host: str | None, origin: str | None, authorization: str | None) -> str:
        """The name of the client's key; '' where none is asked for. Raises ApiError 401 or 403."""
        if not self.keys.on:
            self._check_without_keys(host, origin)
        if not path.startswith("/v1/"):
            return ""
        found = self.keys.identify(authorization)
        if found is not None:
            return found
        missing = "You must send an API key: Authorization: Bearer KEY."
        message = "The API key is not valid." if authorization else missing
        raise ApiError(401, message, code="invalid_api_key", headers=CHALLENGE)

    def cors_headers(self, origin: str | None, requested: str | None) -> dict[str, str]:
        """What lets a page of `origin` read an answer; nothing for other origins. `requested` are the header names that
        a browser asks for before it sends them."""
        if not origin or origin.lower() not in self.origins:
            return {}
        allowed = requested if requested and HEADER_NAMES.fullmatch(requested) else DEFAULT_CORS_REQUEST
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE, OPTIONS",
            "Access-Control-Allow-Headers": allowed,
            "Access-Control-Expose-Headers": EXPOSED,
            "Access-Control-Max-Age": "600",
            "Access-Control-Allow-Private-Network": "true",
            "Vary": "Origin",
        }

    def _check_without_keys(self, host: str | None, origin: str | None) -> None:
        """Without keys the service is for users of this machine. A web page that such a user visits must not reach it,
        neither from its own origin nor by DNS rebinding. A browser always sends Host."""
        if host is not None and not _is_local_name(host):
            message = "Without API keys this server only answers to localhost or an IP address; set auth.keys_file."
            raise ApiError(403, message, code="host_not_allowed")
        if origin and origin.lower() not in self.origins and _network_location(origin) != host:
            message = "Pages of other origins may not use this server; see cors.origins."
            raise ApiError(403, message, code="origin_not_allowed")


@lru_cache(256)  # each request asks twice, and clients keep to one name
def _is_local_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    return True


def _network_location(origin: str) -> str | None:
    """The origin's host and port; None for an origin that is no URL."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
