"""Lua scripts of the call pipeline."""
