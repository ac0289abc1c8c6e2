"""The HTTP service: OpenAI's audio API and jobs. It imports no torch."""

from .app import context_of, create_app

__all__ = ["context_of", "create_app"]
