"""compose.yaml keeps what the promises stand on."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.tidy.tree import ROOT


def redis_options() -> dict[str, str]:
    """What the stack's Redis is started with."""
    composed: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    command: list[str] = composed["services"]["redis"]["command"]
    options = " ".join(command[command.index("redis-server") + 1 :]).split(" --")
    return dict(option.removeprefix("--").split(maxsplit=1) for option in options)


def test_redis_has_on_disk_what_is_acknowledged_and_evicts_nothing() -> None:
    """The journal is in it: with any other of these settings a crash or a full memory loses messages."""
    options = redis_options()
    assert options["appendonly"] == "yes"
    assert options["appendfsync"] == "always"
    assert options["maxmemory-policy"] == "noeviction"
