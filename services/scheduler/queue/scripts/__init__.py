"""One Lua file per step of the queue."""
