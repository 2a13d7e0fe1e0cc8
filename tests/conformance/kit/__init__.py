"""Holds every language to the same cases: `python -m tests.conformance.kit`."""
