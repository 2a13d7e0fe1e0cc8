"""Crons in Postgres."""
