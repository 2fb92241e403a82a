"""Alembic's entry: run the migrations on the connection that `upgrade` made."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
