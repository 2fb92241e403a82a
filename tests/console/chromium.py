"""Where the browser is that the console is tested in.

CHAT_TEST_BROWSER names a Chromium, or says "required": then a machine without one fails these tests, which it else
leaves out. Debian's package is `chromium`. The browser's own sandbox is off for root, who may not have one.
"""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "required"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def executable() -> str:
    """The browser's path. Where there is none the test is left out, or fails if it is required."""
    given = os.environ.get("CHAT_TEST_BROWSER", "")
    if given not in ("", REQUIRED):
        return given
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        reason = "this machine has no Chromium (Debian: apt install chromium; or CHAT_TEST_BROWSER=its path)"
        assert given != REQUIRED, reason
        pytest.skip(reason)
    return found


def arguments() -> list[str]:
    """What it is started with. /dev/shm is tiny in many containers."""
    return ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
