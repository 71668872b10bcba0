"""From weights to a segmenter: decoders, losses, costs, merged and exported methods."""
