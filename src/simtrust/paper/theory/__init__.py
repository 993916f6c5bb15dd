"""Eq. 9 and 11 and Theorems 1 and 2 on random finite MDPs: what holds, and what does not."""
