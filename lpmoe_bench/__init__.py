"""lpmoe-bench: train, score and compare PEFT methods for object segmentation."""

__version__ = "0.1.0"
