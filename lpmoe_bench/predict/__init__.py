"""Predictions of trained runs as files: maps, overlays and methods side by side."""
