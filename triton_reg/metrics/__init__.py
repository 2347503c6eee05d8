"""Measures of one registered pair, or of a batch of pairs, each pair for itself."""
