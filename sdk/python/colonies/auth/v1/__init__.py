"""Generated from protos/colonies/auth/v1: see the comments there."""
