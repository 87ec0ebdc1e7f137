"""What means the same is written the same way before it is read: spellings of gates and products,
computed weights, ones.
"""
