"""/v1/jobs/{job_id}/corrections: names and texts that people put right, kept with the job."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.api_server_fixture import Api, Reply, running
from support.waiting import until
from transcribe.keys import new_key

HEAD = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("api")) as found:
        yield found


def job(api: Api, content: bytes, key: str = "") -> str:
    """The URL of a job that is over, in which A has spoken."""
    number = api.upload("/v1/jobs", content, key=key, speakers="true").json["id"]
    until(lambda: (found := api.store.get(number)) is not None and found.over)
    return f"/v1/jobs/{number}"


def patch(api: Api, url: str, body: Any, **headers: str) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.send("PATCH", f"{url}/corrections", content, HEAD | headers)


def test_corrections_are_in_every_format_and_the_original_is_kept(api: Api) -> None:
    url = job(api, b"to be corrected")
    formats = ("text", "srt", "vtt", "tsv", "json", "verbose_json", "diarized_json", "docx")
    before = {name: api.get(f"{url}/result?format={name}").body for name in formats}
    record = json.loads(api.get(f"{url}/record").json["payload"])
    reply = patch(
        api, url, {"speakers": {"A": " Åsa\u00a0 Ek\n"}, "segments": {"1": "Nu ska vi\n tala om Ärendena.", "2": ""}}
    )
    assert api.get(url).json["correctable"]
    kept = {"speakers": {"A": "Åsa Ek"}, "segments": {"1": "Nu ska vi tala om Ärendena.", "2": ""}}
    assert (reply.status, reply.json) == (200, {"object": "transcription.corrections", "job": url[9:], **kept})
    assert api.get(f"{url}/corrections").json == reply.json
    after = {name: api.get(f"{url}/result?format={name}").body for name in formats}
    after["docx"] = zipfile.ZipFile(io.BytesIO(after["docx"])).read("word/document.xml")
    for name, body in after.items():
        assert "Åsa Ek".encode() in body, name
        assert "Ärendena.".encode() in body, name
        assert b"adj" not in body, name
        assert api.get(f"{url}/result?format={name}&original=true").body == before[name]
    verbose = json.loads(after["verbose_json"])
    assert verbose["text"] == "Hej och välkomna. Nu ska vi tala om Ärendena."
    assert [one.get("corrected") for one in verbose["segments"]] == [None, True, True]
    assert {one["speaker"] for one in verbose["segments"]} == {"Åsa Ek"}
    pieces = api.get(f"{url}/segments").json["data"]
    assert (pieces[1]["words"][-1]["word"], pieces[1]["words"][-1]["probability"]) == ("Ärendena.", 1.0)
    assert api.get(f"{url}/segments?original=true").json["data"][1]["words"][-1]["word"] == "Ärendet."
    said = json.loads(api.get(f"{url}/record").json["payload"])
    digest = hashlib.sha256(verbose["text"].encode()).hexdigest()
    corrections = said.pop("corrections")
    assert said == record
    assert corrections.items() >= {"speakers": 1, "segments": 2, "text_sha256": digest}.items()
    assert corrections["segments_sha256"] != record["segments_sha256"]


def test_corrections_are_taken_back_one_by_one_and_go_with_their_job(api: Api) -> None:
    url = job(api, b"taken back")
    patch(api, url, {"speakers": {"A": "Åsa"}, "segments": {"0": "Hej.", "1": "Nu."}})
    again = {"speakers": {"A": None}, "segments": {"0": "Hej  och välkomna.", "2": "Slut."}}
    assert patch(api, url, again).json["segments"] == {"1": "Nu.", "2": "Slut."}
    assert patch(api, url, {}).json["speakers"] == {}
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one sign for a reader, of three that are joined
    assert patch(api, url, {"speakers": {"A": family}}).json["speakers"] == {"A": family}
    api.send("DELETE", url)
    assert not api.store.corrections.get(url[9:])
    assert patch(api, url, {}).code == "job_not_found"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"{", None, "invalid_json"),
        (b'{"segments": {"0": "\\ud800"}}', None, "invalid_json"),
        (b"[" * 100_000, None, "invalid_value"),
        (["A"], None, "invalid_value"),
        ({"texts": {}}, "texts", "unknown_parameter"),
        ({"speakers": ["A"]}, "speakers", "invalid_value"),
        ({"speakers": {"A": 1}}, "speakers", "invalid_value"),
        ({"speakers": {"Z": "Åsa"}}, "speakers.Z", "invalid_value"),
        ({"speakers": {"A": " "}}, "speakers.A", "invalid_value"),
        ({"speakers": {"A": "Å" * 101}}, "speakers.A", "invalid_value"),
        ({"speakers": {"A": "Å\0sa"}}, "speakers.A", "invalid_value"),
        ({"segments": {"3": "Hej"}}, "segments.3", "invalid_value"),
        ({"segments": {"01": "Hej"}}, "segments.01", "invalid_value"),
        ({"segments": {"1": "a\0"}}, "segments.1", "invalid_value"),
        ({"segments": {"0": "Hej", "1": "a" * 10_001}}, "segments.1", "invalid_value"),
    ],
)
def test_what_cannot_be_kept_is_named_and_nothing_of_it_is_kept(
    api: Api, wrong: str, body: Any, param: str | None, code: str
) -> None:
    reply = patch(api, wrong, body)
    assert (reply.status, reply.code, reply.json["error"]["param"]) == (400, code, param)
    assert api.get(f"{wrong}/corrections").json["segments"] == {}


@pytest.fixture(scope="module")
def wrong(api: Api) -> str:
    return job(api, b"corrected wrongly")


def test_a_job_that_is_not_finished_cannot_be_corrected(held: Api) -> None:
    url = f"/v1/jobs/{held.upload('/v1/jobs', b'not yet').json['id']}"
    assert [patch(held, url, {}).code, held.get(f"{url}/corrections").code] == ["job_not_finished"] * 2


def test_who_and_how(api: Api, wrong: str, tmp_path: Path) -> None:
    assert patch(api, wrong, {}, **{"Content-Type": "text/plain"}).status == 415
    assert patch(api, wrong, b" " * (1024 * 1024 + 1)).status == 413
    assert api.get(f"{wrong}/result?original=perhaps").json["error"]["param"] == "original"
    assert patch(api, job(api, b"bad one"), {}).code == "no_audio"
    (anna, hers), (bo, his) = new_key("anna"), new_key("bo")
    (tmp_path / "keys").write_text(f"{hers}\n{his}\n")
    with running(tmp_path / "root", auth__keys_file=str(tmp_path / "keys")) as keyed:
        url = job(keyed, b"of anna", anna)
        assert patch(keyed, url, {}, Authorization=f"Bearer {anna}").status == 200
        assert patch(keyed, url, {}, Authorization=f"Bearer {bo}").code == "job_not_found"


def test_there_is_a_most_of_a_jobs_corrections(api: Api, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transcribe.jobs.corrections.MOST_CHARACTERS", 5)
    reply = patch(api, wrong, {"segments": {"0": "Hejsan"}})
    assert (reply.status, reply.json["error"]["param"]) == (400, "segments")
    assert api.get(f"{wrong}/corrections").json["segments"] == {}
