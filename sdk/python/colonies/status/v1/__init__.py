"""Generated from protos/colonies/status/v1: see the comments there."""
