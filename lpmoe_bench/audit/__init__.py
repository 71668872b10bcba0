"""Audit of data sets: images that are in two places, and what scores are worth without them."""
