"""Forward-only migrations of the schema `registry`."""
