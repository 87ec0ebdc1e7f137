"""TorchScript archives: read as objects and code, and followed; torch never runs them."""
