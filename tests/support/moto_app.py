"""moto as the clouds of tests serve it."""

from typing import Any

from moto import backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app


def moto_app() -> Any:
    """The WSGI application. It remembers the names of moto's folders, which moto lists again for each request."""
    folders = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: folders
    return DomainDispatcherApplication(create_backend_app)
