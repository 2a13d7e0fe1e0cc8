"""Schedules and conversions of the cron service."""
