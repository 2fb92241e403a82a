"""Chats in files and out again: one form, NDJSON, that `import` reads and `export` writes (see `lines`)."""
