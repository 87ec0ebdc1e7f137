"""A recursion compiled to operations on displacement planes: the program that CPU and CUDA run."""
