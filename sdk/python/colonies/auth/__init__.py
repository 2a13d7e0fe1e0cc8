"""Generated from protos/colonies/auth: see the comments there."""
