"""The campaign: faults by the thousand against real servers under load, and requests by the million.

    make campaign MINUTES=10 SEED=1        # both modes; the seed is printed, and repeats the choices

What it judges by is tests/checker.py, which knows the promises and nothing of the server. What it found stands in
docs/reliability.md.
"""
