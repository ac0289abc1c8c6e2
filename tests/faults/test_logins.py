"""Profiles whose credentials cannot carry a bake: one line with the mend, from every command, and no prompt."""

import hashlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from baker.aws import logins
from botocore.credentials import SSOProvider
from botocore.tokens import SSOTokenProvider
from faults.conftest import Lab

LEGACY = "sso_start_url = https://d-1.awsapps.com/start\nsso_region = eu-north-1\n"
ROLE = "sso_account_id = 111122223333\nsso_role_name = Baker\n"
SESSION = f"[sso-session work]\n{LEGACY}"
ASSUMED = "role_arn = arn:aws:iam::111122223333:role/baker\nsource_profile = base\n"
KEYS = "aws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = s\n"
MFA = "mfa_serial = arn:aws:iam::111122223333:mfa/ann\n"
LOGIN = "run `aws sso login --profile {}`"
EXPORT = 'run eval "$(aws configure export-credentials --profile x --format env)" first'
SECRET = '"SecretAccessKey": "s"'
GOOD, GIVES = f'"AccessKeyId": "AKIDEXAMPLE", {SECRET}', "echo '{{\"Version\": 1, {}}}'"


def program(script: str, profile: str = "x") -> str:
    """A profile whose credentials a program gives."""
    return f"[profile {profile}]\ncredential_process = {shlex.join(('sh', '-c', script))}\n"


PROFILES = {  # what AWS' configuration says, and a part of the line
    "SSO in the profile, never logged in": (f"[profile x]\n{LEGACY}{ROLE}", LOGIN.format("x")),
    "SSO in the profile, expired": (f"[profile x]\n{LEGACY}{ROLE}# expired\n", LOGIN.format("x")),
    "SSO session, never logged in": (f"[profile x]\nsso_session = work\n{ROLE}{SESSION}", LOGIN.format("x")),
    "role by a profile of SSO": (f"[profile x]\n{ASSUMED}[profile base]\n{LEGACY}{ROLE}", LOGIN.format("base")),
    "MFA": (f"[profile x]\n{ASSUMED}{MFA}[profile base]\n{KEYS}", "asks for an MFA code, and nobody is there while"),
    "MFA of the profile before": (
        f"[profile x]\n{ASSUMED.replace('base', 'y')}[profile y]\n{ASSUMED}{MFA}[profile base]\n{KEYS}", EXPORT,
    ),
    "aws login": ("[profile x]\nlogin_session = arn:aws:iam::111122223333:user/ann\nregion = eu-north-1\n", EXPORT),
    "half of SSO": (f"[profile x]\n{LEGACY}sso_role_name = Baker\n", "missing required configuration: sso_account_id"),
    "no such session": (f"[profile x]\nsso_session = play\n{ROLE}", 'sso-session does not exist: "play"'),
    "a role of nobody": (f"[profile x]\n{ASSUMED}", "base"),
    "a program that fails": (program("exit 3"), "gives no credentials: it fails and says nothing; it must answer by"),
    "a program that says why": (program("echo no session >&2; exit 1"), "of profile 'x' gives no credentials: no sess"),
    "a program that is not there": ("[profile x]\ncredential_process = /no/such\n", "be started: No such file"),
    "a program that reads an answer": (program("read -r code && echo $code"), "it fails and says nothing"),
    "a program that would ask the terminal": (  # which is that of its session
        program('[ "$(cut -d" " -f6 /proc/$$/stat)" = $$ ] && echo no terminal >&2; exit 1'), "no terminal;",
    ),
    "a program that is slow": (program("sleep 30"), "it has not answered after 1 s; it must answer by itself"),
    "a slow program of a role": (
        f"[profile x]\n{ASSUMED}{program('sleep 30 & sleep 30', 'base')}", "of profile 'base' gives no credentials",
    ),
    "a program that prints rubbish": (program("echo hello"), "what it prints are no credentials: Expecting value"),
    "a program that prints a list": (program("echo []"), "what it prints are no credentials"),
    "a program that prints bytes": (program("printf '\\377'"), "what it prints are no credentials"),
    "a program of another version": (program("echo '{}'"), "Unsupported version"),
    "a program that lacks a key": (program(GIVES.format('"SecretAccessKey": "s"')), "'AccessKeyId'"),
    "a program with a key that is none": (program(GIVES.format(f'"AccessKeyId": null, {SECRET}')), "has no keys"),
    "a program whose Expiration is no time": (program(GIVES.format(f'{GOOD}, "Expiration": "soon"')), "no credential"),
    "a program whose Expiration has no zone": (
        program(GIVES.format(f'{GOOD}, "Expiration": "2030-01-01T00:00:00"')), "has no time zone",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of SSO's tokens, and a configuration that names the profile x."""
    for provider in (SSOProvider, SSOTokenProvider):
        monkeypatch.setattr(provider, "_SSO_TOKEN_CACHE_DIR", str(tmp_path / "sso"))
    monkeypatch.setattr(logins, "PROGRAM_SECONDS", 1.0)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    lab.config.write_text(lab.config.read_text().replace("[aws]\n", '[aws]\nprofile = "x"\n'))
    (tmp_path / "sso").mkdir()
    return tmp_path / "sso"


@pytest.mark.parametrize("command", ["plan", "doctor", "bake"])
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_that_cannot_be_used_is_one_line(
    lab: Lab, record_property: Callable[[str, object], None], cache: Path, name: str, command: str
) -> None:
    record_property("fault", ("profile", name))
    text, says = PROFILES[name]
    (cache.parent / "config").write_text(text)
    if "# expired" in text:
        token = {"accessToken": "t", "expiresAt": "2026-01-01T00:00:00Z"}
        name_of_token = hashlib.sha1(b"https://d-1.awsapps.com/start", usedforsecurity=False).hexdigest()
        (cache / f"{name_of_token}.json").write_text(json.dumps(token))
    ended = lab.launch(command)
    told = " ".join(ended.err.split()) + " ".join(ended.out.split())
    assert (ended.code in (1, 2), "Traceback" in told, says in told) == (True, False, True), told
    assert len(ended.err.strip().splitlines()) == 1
    lab.assert_left(images=0)
