"""What the tokens of a trained model do, and what a model costs."""
