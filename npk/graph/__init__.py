"""What a path may pass: the path graph, its operators, and what makes its paths independent. No
torch, no samples.
"""
