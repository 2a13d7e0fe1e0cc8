"""Generated from protos/colonies/call: see the comments there."""
