"""GET /v1/machine-key: with what this machine signs the records of results."""

from flask import Blueprint, Response, jsonify

from transcribe.api.context import context

blueprint = Blueprint("machine_key", __name__)


@blueprint.get("/v1/machine-key")
def machine_key() -> Response:
    """The public half, for those who want to pin it."""
    key = context().provenance.key
    return jsonify({"object": "machine_key", "algorithm": "Ed25519", "public_key": key.public})
