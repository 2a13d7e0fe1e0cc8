"""Generated from protos/colonies/scheduler/v1: see the comments there."""
