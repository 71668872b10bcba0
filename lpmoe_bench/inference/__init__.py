"""Trained runs on images: predictions as files, and scores on other test sets."""
