"""Scenes drawn in code, one file a task."""
