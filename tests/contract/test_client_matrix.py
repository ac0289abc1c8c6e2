"""Everything that the last major versions of OpenAI's clients can send works, or is a 400 that names the field. Each
version runs in an environment of its own; what it can send is read from its own types."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import client_matrix
from support.api_server_fixture import Api, running
from support.client_matrix import KINDS, refused
from support.fake_worker import FACTS

pytestmark = [pytest.mark.slow, pytest.mark.sampled]
# What says the same as nothing, the default's own name.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "stream": (None, False),
    "chunking_strategy": (None, "auto"),
    "timestamp_granularities": (["segment"],),
}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path) as found:
        yield found


@pytest.mark.parametrize("name", client_matrix.NAMES)
def test_each_field_works_or_is_refused_by_name_and_none_is_ignored(api: Api, name: str) -> None:
    client = client_matrix.client(name)
    sent = client_matrix.requests(client)
    answers = client.send(api.url, sent)
    jobs = {job.suffix: job for job in api.worker.seen}
    plain: dict[tuple[str, str | None], Any] = {}
    for number, ((route, fields), answer) in enumerate(zip(sent, answers, strict=True)):
        if field := refused(route, fields):
            assert (answer["status"], answer["param"]) == (400, field), (fields, answer)
            continue
        assert answer["status"] == 200, (fields, answer)
        assert answer["x-transcribe-warnings"] is None, (fields, answer)
        assert answer["x-transcribe-model"] == f"{FACTS['model']}@{FACTS['revision']}"
        job, wanted = jobs[f".c{number}"], fields.get("response_format")
        effect = job.options, job.request, answer["shown"]
        if client.is_python and not fields.get("stream"):
            assert answer["kind"] == KINDS.get((route, wanted or "json"), "str"), (route, fields)
        others = [one for one in fields if one != "response_format"]
        if not others:
            plain[route, wanted] = effect
        elif not any(_says_nothing(fields, one) for one in others):
            assert effect != plain[route, wanted], f"{fields} was ignored"


def _says_nothing(fields: dict[str, Any], name: str) -> bool:
    """Whether the field's value is its default, or one that the format has said already."""
    if name == "model":
        return "diarize" not in fields[name] or fields.get("response_format") == "diarized_json"
    return fields[name] in DEFAULTS.get(name, ())
