"""Readers of stored trajectories: one file for each format."""
