"""The campaign itself under test: its checker, its faults, its fuzz, and short versions of all of them."""
