"""Generators over real servers."""
