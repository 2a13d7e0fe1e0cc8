"""Auth: who belongs to which colony, and as what."""
