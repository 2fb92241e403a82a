"""What must be true of any house at the end of a fault test, once it runs again."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.faults.exposed import Stack, command
from tests.faults.load import Load
from tests.houses import House, StackHouse

LOCK_TIMEOUT_S = 10


async def assert_whole(house: House, *loads: Load) -> None:
    """No promise is broken, numbers and counts are those of the rows, and the search index holds what they say."""
    if isinstance(house, StackHouse):
        await Stack(house, house.storage).whole(*loads)
        return
    for load in loads:
        assert await load.broken_promises() == []
    _assert_index_is_sound(house)
    checked = await command(house, "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _assert_index_is_sound(house: House) -> None:
    """FTS5 finds nothing wrong with its own tables, and nothing was set aside."""
    path = house.environment()["CHAT_SQLITE_PATH"]
    with closing(sqlite3.connect(path, isolation_level=None, timeout=LOCK_TIMEOUT_S)) as connection:
        # A write to SQLite, and the reason why `check` leaves it to those versions that can do it by reading.
        connection.execute("INSERT INTO search (search) VALUES ('integrity-check')")
        aside = connection.execute("SELECT count(*) FROM search_queue WHERE error IS NOT NULL").fetchone()
        assert aside == (0,)
