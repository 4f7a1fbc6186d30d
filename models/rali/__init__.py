"""RALI: a quality score from an image tower aligned to reasoning text, with no language model (arXiv 2510.11369)."""
