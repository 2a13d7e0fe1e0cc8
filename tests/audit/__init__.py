"""Audit files: valid ones, damaged ones and forged ones."""
