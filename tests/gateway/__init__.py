"""The gateway before real services, behind a real front door."""
