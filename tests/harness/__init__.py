"""Real servers and real services for tests: Postgres, Valkey, and each service's own composition root in this process."""
