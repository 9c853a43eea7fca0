"""Sequence mixers with one interface; `base` says what a mixer is and how to add one."""
