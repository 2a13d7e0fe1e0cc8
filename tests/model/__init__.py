"""The scheduler against a model of it: random calls, time that passes, replies that get lost."""
