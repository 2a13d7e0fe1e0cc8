"""What every service process is made from: server, call pipeline, errors, caller, Postgres, Redis, clock, settings."""
