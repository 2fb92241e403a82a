"""Settings: read, refused, explained; secrets masked; open to the world only on purpose."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from chat_system.errors import ConfigurationError
from chat_system.settings import Settings, explain, variable

KEY = "an-admin-key-of-some-length"

READ: list[tuple[str, str, str, Any]] = [
    ("CHAT_MODE", "embedded", "mode", "embedded"),
    ("CHAT_MODE", "stack", "mode", "stack"),
    ("CHAT_HOST", "::1", "host", "::1"),
    ("CHAT_PORT", "0", "port", 0),
    ("CHAT_PORT", "65535", "port", 65535),
    ("CHAT_SQLITE_PATH", "/var/lib/chat/db", "sqlite_path", "/var/lib/chat/db"),
    ("CHAT_ADMIN_KEY", KEY, "admin_key", KEY),
    ("CHAT_ADMIN_KEY", "x" * 16, "admin_key", "x" * 16),
    ("CHAT_ALLOW_OPEN", "1", "allow_open", True),
    ("CHAT_ALLOW_OPEN", "0", "allow_open", False),
    ("CHAT_CORS_ORIGINS", "https://a.example", "cors_origins", ("https://a.example",)),
    (
        "CHAT_CORS_ORIGINS",
        " https://a.example/ , http://localhost:3000,",
        "cors_origins",
        ("https://a.example", "http://localhost:3000"),
    ),
    ("CHAT_RATE_PER_S", "1", "rate_per_s", 1),
    ("CHAT_RATE_BURST", "10000000", "rate_burst", 10_000_000),
    ("CHAT_UNKNOWN_RATE_PER_S", "7", "unknown_rate_per_s", 7),
    ("CHAT_MAX_IN_FLIGHT", "1", "max_in_flight", 1),
    ("CHAT_LOG_LEVEL", "debug", "log_level", "debug"),
    ("CHAT_LOG_FORMAT", "json", "log_format", "json"),
    ("CHAT_MYSQL_URL", "mysql://u:p@db:1/chat", "mysql_url", "mysql://u:p@db:1/chat"),
    ("CHAT_REDIS_URL", "rediss://cache:6380/2", "redis_url", "rediss://cache:6380/2"),
    ("CHAT_REDIS_URL", "redis+cluster://[::1]:7000", "redis_url", "redis+cluster://[::1]:7000"),
    ("CHAT_REDIS_PREFIX", "team-1:chat", "redis_prefix", "team-1:chat"),
    ("CHAT_REDIS_MEMORY_MB", "512", "redis_memory_mb", 512),
    ("CHAT_ELASTICSEARCH_URL", "https://u:p@search:9243", "elasticsearch_url", "https://u:p@search:9243"),
    ("CHAT_ELASTICSEARCH_INDEX", "team_1-chat", "elasticsearch_index", "team_1-chat"),
    ("CHAT_PARTITIONS", "256", "partitions", 256),
    ("CHAT_PROCESSES", "4", "processes", 4),
    ("CHAT_WORKER_PORT", "9091", "worker_port", 9091),
]
REFUSED = [
    ("CHAT_MODE", "both"),
    ("CHAT_MODE", "Embedded"),
    ("CHAT_PORT", "-1"),
    ("CHAT_PORT", "65536"),
    ("CHAT_PORT", "http"),
    ("CHAT_PORT", "8080.5"),
    ("CHAT_ADMIN_KEY", "x" * 15),
    ("CHAT_ADMIN_KEY", "a key with spaces in it"),
    ("CHAT_ADMIN_KEY", "schlüssel-mit-umlaut"),
    ("CHAT_ADMIN_KEY", "a-key-with-a-tab\t"),
    ("CHAT_ALLOW_OPEN", "yes"),
    ("CHAT_ALLOW_OPEN", "2"),
    ("CHAT_CORS_ORIGINS", "chat.example"),
    ("CHAT_CORS_ORIGINS", "https://a.example/path"),
    ("CHAT_CORS_ORIGINS", "https://a.example,*"),
    ("CHAT_CORS_ORIGINS", "ftp://a.example"),
    ("CHAT_RATE_PER_S", "0"),
    ("CHAT_RATE_PER_S", "10000001"),
    ("CHAT_RATE_BURST", "many"),
    ("CHAT_UNKNOWN_RATE_PER_S", "0"),
    ("CHAT_MAX_IN_FLIGHT", "0"),
    ("CHAT_MAX_IN_FLIGHT", "100001"),
    ("CHAT_LOG_LEVEL", "verbose"),
    ("CHAT_LOG_LEVEL", "INFO"),
    ("CHAT_LOG_FORMAT", "text"),
    ("CHAT_MYSQL_URL", "postgresql://db/chat"),
    ("CHAT_MYSQL_URL", "mysql:///chat"),
    ("CHAT_MYSQL_URL", "mysql://db:port/chat"),
    ("CHAT_REDIS_URL", "http://cache"),
    ("CHAT_REDIS_URL", "redis://cache:70000"),
    ("CHAT_REDIS_PREFIX", "chat {1}"),
    ("CHAT_REDIS_PREFIX", "chat*"),
    ("CHAT_REDIS_MEMORY_MB", "-1"),
    ("CHAT_ELASTICSEARCH_URL", "search:9200"),
    ("CHAT_ELASTICSEARCH_INDEX", "Chat"),
    ("CHAT_ELASTICSEARCH_INDEX", "_chat"),
    ("CHAT_PARTITIONS", "0"),
    ("CHAT_PARTITIONS", "257"),
    ("CHAT_PROCESSES", "0"),
    ("CHAT_WORKER_PORT", "65536"),
]


DEFAULTS = {one.name: one.default for one in dataclasses.fields(Settings)}


@pytest.mark.parametrize(("name", "text", "field", "value"), READ)
def test_a_setting_is_read(name: str, text: str, field: str, value: object) -> None:
    """It is what the variable says; all others keep their defaults."""
    settings = Settings.from_environment({name: text})
    assert {one.name: getattr(settings, one.name) for one in dataclasses.fields(Settings)} == DEFAULTS | {field: value}


def test_every_setting_is_read_by_a_test_here() -> None:
    """A new setting needs a line above, and one with a format needs a refusal."""
    everything = {variable(field.name) for field in dataclasses.fields(Settings)}
    assert {name for name, *_ in READ} == everything
    assert {name for name, _ in REFUSED} == everything - {"CHAT_HOST", "CHAT_SQLITE_PATH"}


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_a_value_that_is_not_acceptable_is_refused(name: str, text: str) -> None:
    """In one line that names the variable and says what it may be."""
    with pytest.raises(ConfigurationError, match=f"^{name} .+\\.$") as refusal:
        Settings.from_environment({name: text})
    assert "\n" not in str(refusal.value)


def test_a_refusal_never_repeats_a_secret() -> None:
    """The key that is too short does not end in a log."""
    with pytest.raises(ConfigurationError) as refusal:
        Settings.from_environment({"CHAT_ADMIN_KEY": "short-secret"})
    assert "short-secret" not in str(refusal.value)


def test_an_empty_value_is_the_default() -> None:
    """As compose files write what is not set; not even a key becomes an empty one."""
    names = {variable(field.name): "" for field in dataclasses.fields(Settings)}
    assert Settings.from_environment(names) == Settings()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CHAT_PROT", "CHAT_PORT"),
        ("CHAT_ADMINKEY", "CHAT_ADMIN_KEY"),
        ("CHAT_SQLITE", "CHAT_SQLITE_PATH"),
        ("CHAT_LOGLEVEL", "CHAT_LOG_LEVEL"),
        ("CHAT_RATES_PER_S", "CHAT_RATE_PER_S"),
    ],
)
def test_an_unknown_setting_is_refused_and_the_nearest_named(name: str, nearest: str) -> None:
    """A misspelt setting must not be silently the default, an empty one neither."""
    for text in ("1", ""):
        with pytest.raises(ConfigurationError) as refusal:
            Settings.from_environment({name: text})
        assert str(refusal.value) == f"{name} is no setting. Did you mean {nearest}?"


def test_what_is_not_ours_is_left_alone() -> None:
    """Other programs' variables, the tests' own, and lower case."""
    assert Settings.from_environment({"PORT": "1", "CHAT_TEST_X": "1", "CHATTY": "1", "chat_port": "x"}) == Settings()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_may_be_open(host: str) -> None:
    """Whoever reaches it is on this machine."""
    Settings(host=host).check_exposure()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "chat.example", "localhost.example", ""])
def test_other_addresses_need_a_key_or_a_word_that_this_is_meant(host: str) -> None:
    """With neither, the refusal says what is open and how to mean it."""
    with pytest.raises(ConfigurationError, match=r"CHAT_ADMIN_KEY.*CHAT_ALLOW_OPEN=1"):
        Settings(host=host).check_exposure()
    Settings(host=host, admin_key=KEY).check_exposure()
    Settings(host=host, allow_open=True).check_exposure()


def test_settings_are_frozen() -> None:
    """What was checked stays as it was."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_every_setting_is_explained() -> None:
    """In the order of their definition: variable, value, default, where from, and a sentence."""
    environment = {
        "CHAT_PORT": "9",
        "CHAT_ADMIN_KEY": KEY,
        "CHAT_CORS_ORIGINS": "https://a.example,https://b.example",
        "CHAT_ALLOW_OPEN": "1",
        "CHAT_HOST": "",
    }
    explained = explain(Settings.from_environment(environment), environment)
    assert [one.variable for one in explained] == [variable(field.name) for field in dataclasses.fields(Settings)]
    assert all(one.doc.endswith(".") for one in explained)
    by_name = {one.variable: one for one in explained}
    assert (by_name["CHAT_PORT"].value, by_name["CHAT_PORT"].default) == ("9", "8080")
    assert by_name["CHAT_PORT"].source == "environment"
    assert (by_name["CHAT_HOST"].value, by_name["CHAT_HOST"].source) == ("127.0.0.1", "default")
    assert by_name["CHAT_CORS_ORIGINS"].value == "https://a.example,https://b.example"
    assert (by_name["CHAT_ALLOW_OPEN"].value, by_name["CHAT_ALLOW_OPEN"].default) == ("1", "0")


def test_secrets_are_masked() -> None:
    """A key that is set shows as set and no more; one that is not set shows as unset."""
    for environment, shown in (({"CHAT_ADMIN_KEY": KEY}, "********"), ({}, "(unset)")):
        explained = explain(Settings.from_environment(environment), environment)
        assert [one.value for one in explained if one.variable == "CHAT_ADMIN_KEY"] == [shown]
        assert KEY not in repr(explained)


def test_what_is_explained_can_be_set() -> None:
    """Each default, written into its variable, is the default."""
    for one in explain(Settings(), {}):
        if one.default not in ("(unset)", ""):
            assert Settings.from_environment({one.variable: one.default}) == Settings(), one.variable
