"""Instruments that tell whether a model means what it says: numbers from answers, logits and attention, no files."""
