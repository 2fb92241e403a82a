"""The settings: one frozen object, read from the environment. Each field carries the sentence that documents it.

An unknown `CHAT_*` variable is an error that names the nearest one: a misspelt setting must not be silently the
default. `CHAT_TEST_*` is left to the tests.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal
from urllib.parse import urlsplit

from chat_system.errors import ConfigurationError

PREFIX = "CHAT_"
TESTS_PREFIX = "CHAT_TEST_"


def _setting(default: Any, doc: str, read: Callable[[str], Any] = str, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"doc": doc, "read": read, "secret": secret})


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text

    return read


def _number(kind: type[int | float], low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"must be a number from {low:g} to {high:g}") from None
        if not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return value

    return read


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(origin.strip().rstrip("/") for origin in text.split(",") if origin.strip())
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise ValueError(f"names origins like https://chat.example, separated by commas; {origin!r} is none")
    return origins


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or len(text) < 16:
        raise ValueError("must have at least 16 printable ASCII characters and no space")
    return text


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"must be an address like {schemes[0]}://host:port")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("names a port that is none") from None
        return text

    return read


def _prefix(text: str) -> str:
    # Braces would move the hash tag by which a Redis Cluster places our keys, brackets are patterns.
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", text):
        raise ValueError("must be letters, digits, _, -, . and :")
    return text


def _index(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,99}", text):
        raise ValueError("must be lower-case letters, digits, - and _, and begin with a letter")
    return text


@dataclass(frozen=True)
class Settings:
    """All that an operator can set. Made by `from_environment`."""

    mode: Literal["embedded", "stack"] = _setting(
        "embedded",
        "Which house runs: `embedded` (one process, one SQLite file) or `stack`.",
        _one_of("embedded", "stack"),
    )
    host: str = _setting("127.0.0.1", "The address to listen on.")
    port: int = _setting(8080, "The port to listen on; 0 takes a free one.", _number(int, 0, 65535))
    sqlite_path: str = _setting("chat.sqlite3", "Embedded mode: the database file. It is made when it is missing.")
    mysql_url: str = _setting(
        "mysql://chat@127.0.0.1:3306/chat",
        "Stack mode: the MySQL or MariaDB database, `mysql://user:password@host:port/database`.",
        _url("mysql"),
        secret=True,
    )
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "Stack mode: Redis, `redis://` or `rediss://`; for a Redis Cluster any of its nodes, "
        "`redis+cluster://host:port`.",
        _url("redis", "rediss", "redis+cluster", "rediss+cluster"),
        secret=True,
    )
    redis_prefix: str = _setting(
        "chat", "Stack mode: what the names of all keys and channels in Redis begin with.", _prefix
    )
    redis_memory_mb: int = _setting(
        0,
        "Stack mode: writes are refused with 503 while Redis uses more than this, in MiB; "
        "0 is 80 % of its `maxmemory`, or no mark where that is unset.",
        _number(int, 0, 10_000_000),
    )
    elasticsearch_url: str = _setting(
        "http://127.0.0.1:9200",
        "Stack mode: Elasticsearch, `http://` or `https://`, with `user:password@` if it asks for them.",
        _url("http", "https"),
        secret=True,
    )
    elasticsearch_index: str = _setting(
        "chat-messages", "Stack mode: the alias of the search index; the indices behind it are numbered.", _index
    )
    partitions: int = _setting(
        8,
        "Stack mode: into how many streams the journal is divided, by application. Fixed at the first start.",
        _number(int, 1, 256),
    )
    processes: int = _setting(
        1, "Stack mode: how many processes `serve` answers with on its one port.", _number(int, 1, 256)
    )
    worker_port: int = _setting(
        0, "Stack mode: the port on which `work` serves its metrics and health; 0 is none.", _number(int, 0, 65535)
    )
    admin_key: str | None = _setting(
        None,
        "The key that creating, listing, renaming and erasing applications needs. Unset, everything is open.",
        _key,
        secret=True,
    )
    allow_open: bool = _setting(
        False, "1 lets a server without an admin key listen on addresses that others reach.", _flag
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "Origins whose pages may call the API from a browser, separated by commas.", _origins
    )
    rate_per_s: int = _setting(
        20_000, "Requests per second that one application may make on average.", _number(int, 1, 10_000_000)
    )
    rate_burst: int = _setting(
        40_000, "Requests that one application may make at once after a pause.", _number(int, 1, 10_000_000)
    )
    unknown_rate_per_s: int = _setting(
        500, "Requests per second with unknown tokens that one client address may make.", _number(int, 1, 10_000_000)
    )
    max_in_flight: int = _setting(
        1_000,
        "Requests answered at the same time, by each process; further ones get 503. Event streams do not count.",
        _number(int, 1, 100_000),
    )
    log_level: str = _setting(
        "info", "The least severe log lines that are written.", _one_of("debug", "info", "warning", "error")
    )
    log_format: Literal["json", "console"] = _setting(
        "console", "`json` writes one object a line, `console` columns for people.", _one_of("json", "console")
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read and check the settings.

        Raises:
            ConfigurationError: a variable is unknown or its value is not acceptable.
        """
        known = {variable(name): setting for name, setting in _FIELDS.items()}
        values = {}
        for name, text in environment.items():
            if not name.startswith(PREFIX) or name.startswith(TESTS_PREFIX):
                continue
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)
                raise ConfigurationError(f"{name} is no setting. Did you mean {nearest[0]}?")
            if text == "":
                continue
            try:
                values[known[name].name] = known[name].metadata["read"](text)
            except ValueError as error:
                raise ConfigurationError(f"{name} {error}.") from None
        return cls(**values)

    def check_exposure(self) -> None:
        """Refuse to be open to the world by accident.

        Raises:
            ConfigurationError: no admin key, an address that others reach, and no word that this is meant.
        """
        if self.admin_key is None and not _is_loopback(self.host) and not self.allow_open:
            raise ConfigurationError(
                f"Without CHAT_ADMIN_KEY everything is open to whoever reaches {self.host}."
                " Set CHAT_ADMIN_KEY, or CHAT_ALLOW_OPEN=1 if that is meant."
            )


_FIELDS = {setting.name: setting for setting in fields(Settings)}


@dataclass(frozen=True)
class Explained:
    """One setting as an operator asks for it: its value (secrets masked), where that is from, and what it does."""

    variable: str
    value: str
    default: str
    source: Literal["environment", "default"]
    doc: str


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def explain(settings: Settings, environment: Mapping[str, str]) -> list[Explained]:
    """Every setting in force."""
    return [
        Explained(
            variable(name),
            _show(getattr(settings, name), secret=setting.metadata["secret"]),
            _show(setting.default, secret=False),
            "environment" if environment.get(variable(name)) else "default",
            setting.metadata["doc"],
        )
        for name, setting in _FIELDS.items()
    ]


def _show(value: Any, *, secret: bool) -> str:
    if value is None:
        return "(unset)"
    if secret:
        return "********"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
