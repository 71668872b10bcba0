"""Data sets on disk: what is there, where to get it, taking it in, whether it is sound."""
