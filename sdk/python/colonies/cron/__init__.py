"""Generated from protos/colonies/cron: see the comments there."""
