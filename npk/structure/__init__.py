"""What can be said of a network without its kernel: work, and shifts that change nothing."""
