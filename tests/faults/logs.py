"""What the log of a process of ours may never show, whatever was done to it: a traceback, which means a defect.

    assert tracebacks(house.log_text()) == []

None is intended anywhere: a server that is away, a full disk, a refused start are each told of in a line.
"""

from __future__ import annotations

BEGINNING = "Traceback (most recent call last)"
BEFORE_CHARACTERS = 200
"""Enough for the line of the log that a traceback explains."""

AFTER_CHARACTERS = 2000


def tracebacks(text: str) -> list[str]:
    """Each traceback in a log, and what stands around it."""
    found: list[str] = []
    at = text.find(BEGINNING)
    while at >= 0:
        found.append(text[max(0, at - BEFORE_CHARACTERS) : at + AFTER_CHARACTERS])
        at = text.find(BEGINNING, at + 1)
    return found
