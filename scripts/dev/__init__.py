"""For developers alone; nothing imports from here but tests. `python3 scripts/dev` lists it."""
