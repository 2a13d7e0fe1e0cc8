"""The developers' own tools."""
