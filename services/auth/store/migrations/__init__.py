"""Forward-only migrations of the schema `auth`."""
