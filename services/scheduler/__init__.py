"""The scheduler: processes, attempts, workflows, queue, logs, attributes."""
