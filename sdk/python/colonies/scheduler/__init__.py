"""Generated from protos/colonies/scheduler: see the comments there."""
