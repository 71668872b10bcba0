"""Data: from a name to verified tensors."""
