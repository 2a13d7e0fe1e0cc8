"""Generated from protos/colonies/status: see the comments there."""
