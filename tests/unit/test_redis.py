"""The address of Redis: what it may say, and what is told of what it may not."""

from __future__ import annotations

import pytest

from chat_system.errors import ConfigurationError
from chat_system.stack.redis import Redis


@pytest.mark.parametrize("end", ["", "/", "/0", "/15", "/0?socket_keepalive=true"])
async def test_an_address_may_name_a_database_and_options_of_the_client(end: str) -> None:
    """It is connected to by the first command."""
    await Redis(f"redis://user:password@127.0.0.1:1{end}", "chat", 1).close()


@pytest.mark.parametrize("end", ["/cache", "/0/1", "/-1", "/0?socket_timeout=soon", "/0?no_such_option=1", "?db=first"])
async def test_an_address_that_can_not_be_used_is_refused_by_name(end: str) -> None:
    """A sentence for the operator, before anything is served; the password is none of it."""
    with pytest.raises(ConfigurationError, match="CHAT_REDIS_URL") as refused:
        Redis(f"redis://user:password@127.0.0.1:1{end}", "chat", 1)
    assert "password" not in str(refused.value)
