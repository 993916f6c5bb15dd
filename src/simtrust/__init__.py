"""simtrust: where can a simulator be trusted, and how to train with it all the same."""

__version__ = "0.1.0"
