"""GET /v1/models: the one model, under the names that clients know it by."""

from typing import Any

from flask import Blueprint, Response, jsonify

from transcribe.api.context import AppContext, context
from transcribe.api.params import check_model

blueprint = Blueprint("models", __name__, url_prefix="/v1/models")


@blueprint.get("")
def listing() -> Response:
    """The configured model and its other names, each with the model that it stands for as `root`."""
    shared = context()
    names = dict.fromkeys((shared.config.model.id, *shared.config.model_names.all))
    return jsonify({"object": "list", "data": [_body(shared, name) for name in names]})


@blueprint.get("/<path:name>")
def show(name: str) -> Response:
    """One of them; a name may have its revision after an @."""
    shared = context()
    check_model(name, shared.offer.models)
    return jsonify(_body(shared, name))


def _body(shared: AppContext, name: str) -> dict[str, Any]:
    created, source = shared.model_origin
    model = shared.config.model.id
    body = {"id": name, "object": "model", "created": created, "owned_by": model.partition("/")[0]}
    return {**body, "root": model, "revision": shared.revision, "source": source}
