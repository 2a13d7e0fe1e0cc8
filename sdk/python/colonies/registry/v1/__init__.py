"""Generated from protos/colonies/registry/v1: see the comments there."""
