"""Logs by D4RL's protocol: our own SAC is trained in the real task, and its policies are recorded."""
