"""The parts of tools/predict.py: its inputs and outputs."""
