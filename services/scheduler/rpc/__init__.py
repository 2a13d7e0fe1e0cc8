"""The scheduler's face: requests to domain calls to responses."""
