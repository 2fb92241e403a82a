"""Posting writes less: no row in the search queue, no entry in an index of revisions."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from chat_system.embedded.migrations import statements

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add what replaces both. What waits in the search queue stays there until the index has taken it."""
    for statement in statements(Path(__file__).with_name("schema_0002.sql")):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """A released schema is never taken back."""
    raise RuntimeError("There is no way back: restore a backup.")
