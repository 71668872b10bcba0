"""Data sets on disk: what is there, where to get it, taking it in, and whether it is sound."""
