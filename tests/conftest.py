"""Shared by all tests: no compiled code is kept between sessions, and no test depends on the last."""

import os

import hypothesis

# The machine may be shared: how long an example takes says nothing about the code.
hypothesis.settings.register_profile("simtrust", deadline=None)
hypothesis.settings.load_profile("simtrust")

os.environ.setdefault("JAX_PLATFORMS", "cpu")
