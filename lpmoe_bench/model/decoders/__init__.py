"""Decoders: from a method's features to logits, one file each."""
