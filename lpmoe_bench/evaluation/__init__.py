"""Evaluation of a trained run on test sets that it was not scored on."""
