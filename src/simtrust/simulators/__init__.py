"""Simulators: ``gymnasium.vector.VectorEnv``s whose instances are restarted only on request."""

from simtrust.simulators.adapters import make_simulator
from simtrust.simulators.shifts import Shift, parse_shifts

__all__ = ["Shift", "make_simulator", "parse_shifts"]
