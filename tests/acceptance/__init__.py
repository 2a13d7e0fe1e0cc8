"""Whole stories, by the command line and real processes."""
