"""Evaluation: what a policy earns, in the units of its user."""
