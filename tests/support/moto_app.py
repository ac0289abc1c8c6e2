"""moto as the clouds of tests serve it."""

from functools import cache
from typing import Any

from moto import backends
from moto.core import responses
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app


def moto_app() -> Any:
    """The WSGI application. It remembers what moto looks up again for each request, a fifth of the time: the names of
    its folders, and of the methods of its classes."""
    folders = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: folders
    if not hasattr(responses.method_names_from_class, "cache_info"):
        responses.method_names_from_class = cache(responses.method_names_from_class)
    return DomainDispatcherApplication(create_backend_app)
