"""Measured signals of pixels: claims, wording, evidence, four independent families of estimators, fitted thresholds."""
