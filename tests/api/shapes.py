"""The exact shape of each resource (API.md, "Resources"), and texts that must survive unharmed."""

from __future__ import annotations

import re
from datetime import UTC, datetime

APPLICATION_FIELDS = {"token", "name", "chats_count", "created_at", "updated_at"}
CHAT_FIELDS = {"number", "title", "metadata", "messages_count", "revision", "created_at", "updated_at"}
MESSAGE_FIELDS = {
    "number",
    "sender",
    "body",
    "metadata",
    "revision",
    "created_at",
    "updated_at",
    "deleted_at",
}

UNKNOWN_TOKEN = "A" * 43

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

# Texts that a careless layer trims, normalises, folds or breaks.
DELICATE_TEXTS = {
    "spaces around": "  padded \t",
    "line ends": "a\r\nb\rc\nd\u2028e\u0085f",
    "not normalised": "e\u0301 \u212b \ufb03",
    "right to left": "\u202eשלום\u202c مرحبا",
    "astral": "😀👩\u200d👩\u200d👧\U0001f3f3\ufe0f\u200d🌈 \U0010fffd",
    "noncharacters": "\ufffe\uffff\U0001ffff",
    "control characters": "\x01\x08\x1b\x7f",
    "json and html": '"\\/</script>&amp;\u2029',
    "byte-order mark inside": "a\ufeffb",
    "percent and sql": "100%_*?'; --",
}


def moment(value: object) -> datetime:
    """A time of the API as a datetime; it must be RFC 3339 in UTC with milliseconds and Z."""
    assert isinstance(value, str), value
    assert _TIME.fullmatch(value), value
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
