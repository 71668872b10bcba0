"""Frozen vision transformers, opened into verbs."""
