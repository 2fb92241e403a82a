"""The process that migrates: it is told the address by its parent, which holds the lock.

It answers what the driver says, as a number and a text; without a number the connection was lost.
"""

from __future__ import annotations

import asyncio

import msgspec
from asyncmy.errors import InterfaceError, InternalError, MySQLError

from chat_system.apart import obey
from chat_system.stack.migrations import upgrade
from chat_system.stack.mysql import Address


def _migrate(url: str) -> str | None:
    try:
        asyncio.run(upgrade(Address.of(url).connect))
    except (MySQLError, OSError, EOFError) as error:
        answered = isinstance(error, MySQLError) and not isinstance(error, InterfaceError | InternalError)
        number, text = error.args if answered and len(error.args) == 2 else (None, str(error))
        return msgspec.json.encode((number, text)).decode()
    return None


if __name__ == "__main__":
    obey(_migrate)
