"""Scores of anybody's maps, the same as of our own: from folders to records."""
