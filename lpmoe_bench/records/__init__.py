"""Records: what they say, where they lie, what they have in common."""
