"""The kernel of many samples: tiles, the matrix they make, and where it is kept."""
