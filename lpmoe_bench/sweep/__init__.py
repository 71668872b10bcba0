"""Sweeps: many runs planned as immutable cells, each run in a process of its own."""
