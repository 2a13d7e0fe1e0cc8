"""Attacks on running services: what is refused, and that it changes nothing. SECURITY.md names these tests."""
