"""Backbone names and files to verified weights."""
