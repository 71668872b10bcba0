"""Audit of data sets: images that are in two places, and what lies in two splits."""
