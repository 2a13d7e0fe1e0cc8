"""Generated from protos/colonies/cron/v1: see the comments there."""
