"""Audit files: who asked for what, and who reported which result. The format is specified in docs/audit.md.

`lines` writes a file, `chains` has the hashes in it, and `verify` checks one without any server.
"""
