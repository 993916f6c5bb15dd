"""Shared by all tests: no compiled code is kept between sessions, and no test depends on the last."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
