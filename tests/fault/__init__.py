"""Kill -9, pause and flush, with an accounting of every acknowledged item at the end."""
