"""What a request is called in the table of faults."""

import re
from urllib.parse import parse_qs
from wsgiref.types import WSGIEnvironment

from localcloud.aws.query_protocol import read_form

OBJECT_CALLS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}


def name_of(environ: WSGIEnvironment) -> str:
    """A request's operation, and for an object the last part of its key, or for a description whether it names ids."""
    form = read_form(environ)
    if form:
        ids = any(re.match(r"(Instance|Image)Id\.1$", key) for key in form)
        dry = " dry" if form.get("DryRun") == "true" else ""
        return form["Action"] + (" by id" if ids and form["Action"].startswith("Describe") else "") + dry
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return target.rpartition(".")[2]
    if environ.get("QUERY_STRING", "").startswith("notification"):
        return f"{environ['REQUEST_METHOD'].capitalize()}BucketNotificationConfiguration"
    key = environ["PATH_INFO"].strip("/").partition("/")[2]
    if not key:
        listing = parse_qs(environ.get("QUERY_STRING", "")).get("list-type")
        return "ListObjectsV2" if listing else "HeadBucket"
    tail = key.rpartition("/")[2]
    kind = "payload" if tail.endswith(".tar") else "bake.json" if "/bakes/" in key else tail
    if "/state/" in key:
        kind = "state"
    if "/reports/" in key:
        kind = "timeline" if tail.endswith(".html") else "final report"
    return f"{OBJECT_CALLS[environ['REQUEST_METHOD']]} {kind}"
