"""The first schema: applications, chats, messages, receipts, epochs of the journal, what an installation fixed."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from chat_system.stack.migrations import statements

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make everything."""
    for statement in statements(Path(__file__).with_name("schema_0001.sql")):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """There is no schema before the first."""
    raise RuntimeError("There is no schema before the first.")
