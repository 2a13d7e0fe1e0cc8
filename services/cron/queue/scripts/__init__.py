"""One Lua file for each step."""
