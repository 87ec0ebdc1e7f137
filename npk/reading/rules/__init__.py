"""One rule an operator of PyTorch; RULES in layers.py is the list."""
