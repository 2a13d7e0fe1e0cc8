"""The scheduler's tables: durable truth."""
