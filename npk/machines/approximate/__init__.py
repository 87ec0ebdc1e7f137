"""Machines that are content with a part of the kernel: some of its columns, or features drawn at random."""
