"""The domain's ports on Postgres."""
