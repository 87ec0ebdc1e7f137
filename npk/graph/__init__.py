"""What a path may pass: path graph, operators, independence of paths. No torch, no samples."""
