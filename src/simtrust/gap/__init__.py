"""The dynamics gap between simulator and reality: estimates, and the weights made from them."""
