"""The project's own order: sizes, names, schema, documents and the OpenAPI snapshot. No server, no network."""
