"""The page at `/`, with a policy that runs nothing but its own files."""

import html
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from transcribe.api.context import context
from transcribe.languages import LANGUAGES, name_of

blueprint = Blueprint("page", __name__)

FOLDER = Path(__file__).parents[1] / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@blueprint.get("/")
def index() -> Response:
    """The page; the languages that can be chosen are filled in here."""
    config = context().config
    return _answer(_page(config.model.language, config.retention.results_hours).encode(), "text/html")


@blueprint.get("/static/<name>")
def static(name: str) -> Response:
    """One of the page's files: only those that were there when the server started."""
    if name not in _files():
        raise NotFound
    return _answer(_files()[name], TYPES[Path(name).suffix])


def _answer(content: bytes, mimetype: str) -> Response:
    response = Response(content, content_type=f"{mimetype}; charset=utf-8", headers=HEADERS)
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def _files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in TYPES}


@cache
def _page(default: str, hours: float) -> str:
    names = sorted((name.title(), code) for code, name in LANGUAGES.items())
    options = "".join(f'<option value="{code}" data-code="{code}">{html.escape(name)}</option>' for name, code in names)
    usual = (
        f'<option value="" data-code="{default}">{html.escape(name_of(default).title())} (usual)</option>'
        if default
        else ""
    )
    kept = "an hour" if hours == 1 else f"{hours:g} hours"
    template = (FOLDER / "index.html").read_text(encoding="utf-8")
    return template.replace("{{languages}}", options).replace("{{usual}}", usual).replace("{{kept}}", kept)
