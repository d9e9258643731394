"""Inputs and outputs of tools/predict.py; inputs.py, report.py and explorer_folder.py also serve explore_tokens.py."""
