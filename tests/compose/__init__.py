"""compose.yaml, run for real: `make compose-test`."""
