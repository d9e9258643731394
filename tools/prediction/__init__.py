"""The parts of tools/predict.py: what to read, and what to write."""
