"""Training: the loop around the algorithms, and what keeps its results safe."""
