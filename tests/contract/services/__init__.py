"""What services expect of each other: each consumer's expectations played against the provider alone (see README.md)."""
