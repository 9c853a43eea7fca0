"""Measurements: speed and memory, side by side in one process. Run as `python -m benchmarks.X`."""
