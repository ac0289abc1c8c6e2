"""config/transcribe.json as typed values. It is the pillar's `transcribe`, and every key of it is required."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

CONFIG_VARIABLE = "TRANSCRIBE_CONFIG"
DEFAULT_PATH = Path("/opt/transcribe/config/transcribe.json")


class ConfigError(Exception):
    """The configuration cannot be used. The message is one line that names the key."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model; `language` is an ISO 639-1 code, or '' to detect it in each recording."""

    id: str
    revision: str
    endpoint: str
    language: str
    task: str


@dataclass(frozen=True)
class BatchConfig:
    """How many 30 s chunks go through the model at once, at most."""

    max_chunks: int


@dataclass(frozen=True)
class LimitsConfig:
    """Bounds on what clients control; see the pillar for each."""

    upload_bytes: int
    audio_seconds: int
    queue_jobs: int
    queue_audio_seconds: int
    decode_seconds: int
    decode_bytes: int
    key_jobs: int
    waiting_requests: int


@dataclass(frozen=True)
class RetentionConfig:
    """How long finished jobs are kept."""

    results_hours: float


@dataclass(frozen=True)
class AuthConfig:
    """The file of hashed API keys; '' leaves the service open, which only loopback may be."""

    keys_file: str


@dataclass(frozen=True)
class CorsConfig:
    """Origins whose pages may call the service; none by default."""

    origins: tuple[str, ...]


@dataclass(frozen=True)
class WebhookConfig:
    """Whether finished jobs may call a client's URL, and the file with the secret that signs the calls."""

    enabled: bool
    secret_file: str


@dataclass(frozen=True)
class InstallConfig:
    """What Salt builds the virtual environment with."""

    python: str
    lock: str


@dataclass(frozen=True)
class VerifyConfig:
    """The clip that every machine must transcribe, and how well."""

    clip: str
    language: str
    reference: str
    max_word_error_rate: float


@dataclass(frozen=True)
class ServiceConfig:
    """The pillar's `transcribe`, and the paths that follow from its root."""

    root: Path
    user: str
    group: str
    host: str
    port: int
    model: ModelConfig
    device: str
    dtype: str
    batch: BatchConfig
    limits: LimitsConfig
    retention: RetentionConfig
    auth: AuthConfig
    cors: CorsConfig
    callbacks: WebhookConfig
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
        """cache_info.json and compiled kernels."""
        return self.root / "cache"

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
        config: ServiceConfig = _build(cls, mapping, "")
        return config


CHOICES = {
    "device": ("auto", "cuda", "cpu"),
    "dtype": ("auto", "float32", "float16", "bfloat16", "int8"),
    "model.task": ("transcribe", "translate"),
    "install.lock": ("auto", "cpu", "cuda"),
}
MAY_BE_EMPTY = {"model.language", "auth.keys_file", "callbacks.secret_file"}
NOUNS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
MAX_PORT = 65_535


def _build(kind: Any, value: Any, key: str) -> Any:
    """`value` as `kind` (a dataclass, Path, tuple of strings or scalar); `key` is its dotted name, '' at the top."""
    if is_dataclass(kind):
        return _build_dataclass(kind, value, key)
    if kind is Path:
        if not isinstance(value, str) or not value.startswith("/"):
            raise ConfigError(f"{key} must be an absolute path, not {value!r}")
        return Path(value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key} must be a list, not {value!r}")
        return tuple(_build(get_args(kind)[0], item, f"{key}[{index}]") for index, item in enumerate(value))
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{key} must be {NOUNS[kind]}, not {value!r}")
    _check(key, value)
    return kind(value)


def _build_dataclass(kind: Any, value: Any, key: str) -> Any:
    prefix = f"{key}." if key else ""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key or 'the configuration'} must be a mapping, not {value!r}")
    hints = get_type_hints(kind)
    names = list(hints)
    if unknown := sorted(f"{prefix}{name}" for name in set(value) - set(names)):
        raise ConfigError(f"unknown key: {', '.join(unknown)}")
    if missing := [f"{prefix}{name}" for name in names if name not in value]:
        raise ConfigError(f"missing key: {', '.join(missing)}")
    return kind(**{name: _build(hints[name], value[name], f"{prefix}{name}") for name in names})


def _check(key: str, value: Any) -> None:
    """Refuses values of the right type that still cannot be."""
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"{key} must be one of {', '.join(CHOICES[key])}, not {value!r}")
    if isinstance(value, str) and not value and key not in MAY_BE_EMPTY:
        raise ConfigError(f"{key} must not be empty")
    if type(value) in (int, float) and value <= 0:
        raise ConfigError(f"{key} must be above 0, not {value!r}")
    if key == "port" and value > MAX_PORT:
        raise ConfigError(f"port must be at most {MAX_PORT}, not {value}")


def default_path() -> Path:
    """$TRANSCRIBE_CONFIG, or the machine's place."""
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)


def load(path: Path) -> ServiceConfig:
    """Reads the file, with or without the pillar's outer key. Raises ConfigError that names the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and set(found) == {"transcribe"}:
            found = found["transcribe"]
        return ServiceConfig.from_mapping(found)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; run salt-call state.apply, or set {CONFIG_VARIABLE}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({' '.join(str(error).split())})") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
