"""Scores of segmentation maps: what they mean, and one engine that computes them."""
