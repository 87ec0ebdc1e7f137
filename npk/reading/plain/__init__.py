"""What means the same is written the same way before it is read: gates, products, constants."""
