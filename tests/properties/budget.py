"""How much Hypothesis may try. CHAT_TEST_EXAMPLES multiplies it (1 if absent; 20 for a night, with `-o timeout=0`)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

FACTOR = int(os.environ.get("CHAT_TEST_EXAMPLES", "1"))


def budget(examples: int, *, steps: int = 1) -> settings:
    """Settings for a number of examples (of a state machine: of that many steps at most).

    No shrinking: what fails here is a server with a history and clients at work at once, so a smaller example
    seldom fails in the same way, and each try may take its whole deadline. The failing example is printed.
    """
    return settings(
        max_examples=examples * FACTOR,
        stateful_step_count=steps,
        deadline=None,
        phases=[Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
