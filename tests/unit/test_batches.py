"""Stream entries that are not as they should be: taken apart, so that only what is wrong with them is set aside."""

from __future__ import annotations

import pytest

from chat_system.stack import facts
from chat_system.stack.batches import Flush

HEAD = [facts.POST, 1, 1, 1, 1, 1_000]
GOOD = facts.encode([[HEAD, [["ada", "said", None, None]]]])


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        GOOD[:-1],
        GOOD.replace(b"said", b"s\xffid"),
        GOOD.replace(b"ada", b"\xed\xa0\x80"),
        facts.encode([[HEAD, [[1, "said", None, None]]]]),
        facts.encode([[HEAD[:-1], [["ada", "said", None, None]]]]),
    ],
)
@pytest.mark.parametrize("only_messages", [True, False])
def test_what_can_t_be_read_is_not_unpacked(packed: bytes, only_messages: bool) -> None:
    """Whatever is wrong: bytes that are no MessagePack, no text, or of another shape."""
    assert Flush(0, "1-1", [b"t", b"1", b"m", GOOD], only_messages=only_messages).unpack()
    assert not Flush(0, "1-1", [b"t", b"1", b"m", GOOD, b"m", packed], only_messages=only_messages).unpack()
