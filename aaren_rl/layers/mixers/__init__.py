"""Sequence mixers with one interface; see `base` for the interface."""
