"""Registry: what executors can do, where they are, and whether they may work."""
