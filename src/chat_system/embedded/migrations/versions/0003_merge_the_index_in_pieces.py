"""The search index leaves merging to us: FTS5's own is done within whichever COMMIT is its turn, for up to 0.2 s."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from chat_system.embedded.migrations import statements

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Switch it off; `unindexed.merge` does the same work in pieces."""
    for statement in statements(Path(__file__).with_name("schema_0003.sql")):
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    """A released schema is never taken back."""
    raise RuntimeError("There is no way back: restore a backup.")
