"""Compares finished runs: reads them, groups them by settings, computes differences per class, writes the page."""
