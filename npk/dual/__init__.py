"""The dual view of one network: its path graph, its gates, its paths, and the recursion that sums over them."""
