"""Generated from protos/colonies/registry: see the comments there."""
