"""Settings: one typed table, read from flags, the environment and a TOML file, in that order of precedence.

Every setting may come from ``KEYWRIGHT_<NAME>``; a confidential one also from the file that ``KEYWRIGHT_<NAME>_FILE``
names. The reference page is made from this table.
"""

import tomllib
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from keywright.errors import CannotStart
from keywright.model import Network


class Setting(NamedTuple):
    """One setting: its name, how its text is read, its default as text, and a sentence about it."""

    name: str
    kind: str  # text, number, networks, choice:a,b
    default: str
    sentence: str
    confidential: bool = False


SETTINGS: Final = (
    Setting(
        "database", "text", "sqlite:///keywright.db", "Where the keys are: sqlite:///FILE or postgresql://…"
    ),
    Setting(
        "secret",
        "text",
        "",
        "The installation's secret; without it, the file <database>.secret.",
        confidential=True,
    ),
    Setting("host", "text", "127.0.0.1", "The address that the server listens on."),
    Setting("port", "number", "8700", "The port that the server listens on."),
    Setting(
        "public_url", "text", "", "How clients reach the server; with https:// plain HTTP is refused unread."
    ),
    Setting(
        "trusted_proxies",
        "networks",
        "",
        "Networks of proxies whose word on client address and scheme is believed.",
    ),
    Setting("cache_size", "number", "100000", "How many keys a process remembers."),
    Setting(
        "on_store_loss",
        "choice:serve,refuse",
        "serve",
        "What is done with remembered keys when the store is gone.",
    ),
    Setting(
        "max_stale", "number", "60", "For how many seconds remembered keys are served when the store is gone."
    ),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The values in force, and where each came from."""

    database: str
    secret: str
    host: str
    port: int
    public_url: str
    trusted_proxies: tuple[Network, ...]
    cache_size: int
    on_store_loss: str
    max_stale: int
    origins: dict[str, str]

    @property
    def base_url(self) -> str:
        """The address that examples show."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


def load(flags: Mapping[str, Any], environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Read the settings. A flag that is ``None`` was not given. Raises ``CannotStart`` with the setting's name."""
    written = _file(file)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        text, origin = _text(setting, flags, environ, written)
        values[setting.name] = _read(setting, text)
        origins[setting.name] = origin
    return Settings(**values, origins=origins)


def _text(
    setting: Setting, flags: Mapping[str, Any], environ: Mapping[str, str], written: Mapping[str, Any]
) -> tuple[str, str]:
    if flags.get(setting.name) is not None:
        return str(flags[setting.name]), "flag"
    variable = f"KEYWRIGHT_{setting.name.upper()}"
    if variable in environ:
        return environ[variable], variable
    if setting.confidential and f"{variable}_FILE" in environ:
        path = Path(environ[f"{variable}_FILE"])
        try:
            return path.read_text(encoding="utf-8").strip(), f"{variable}_FILE"
        except (OSError, UnicodeDecodeError) as trouble:
            raise CannotStart(f"{variable}_FILE: {path} cannot be read: {trouble}") from None
    if setting.name in written:
        value = written[setting.name]
        return ",".join(value) if isinstance(value, list) else str(value), "file"
    return setting.default, "default"


def _read(setting: Setting, text: str) -> Any:
    if setting.kind == "number":
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise CannotStart(f"setting {setting.name}: {text[:40]!r} is not a number")
        return int(text)
    if setting.kind == "networks":
        try:
            return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
        except ValueError as wrong:
            raise CannotStart(f"setting {setting.name}: {wrong}") from None
    if setting.kind.startswith("choice:") and text not in setting.kind[7:].split(","):
        raise CannotStart(f"setting {setting.name}: {text[:40]!r} is none of {setting.kind[7:]}")
    return text


def _file(file: Path | None) -> Mapping[str, Any]:
    if file is None:
        return {}
    try:
        written = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as trouble:
        raise CannotStart(f"the settings file {file} cannot be read: {trouble}") from None
    for name in written:
        if name not in _BY_NAME:
            raise CannotStart(f"the settings file {file} has the unknown setting {name!r}")
    return written
