"""Generated from protos/colonies/call/v1: see the comments there."""
