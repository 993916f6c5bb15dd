"""The paper's studies, each made again by one command."""
