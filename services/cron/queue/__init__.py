"""When crons and generators are to be looked at, in Redis: derived from the tables, and lost without harm."""
