"""Simulators: ``gymnasium.vector.VectorEnv``s whose instances are restarted only on request.

Importing this registers the wheel-legged robot with Gymnasium, as ``simtrust/StandingStill-v0`` and
``simtrust/MovingStraight-v0``.
"""

from simtrust.simulators.adapters import make_simulator
from simtrust.simulators.joint import make_joint_simulator
from simtrust.simulators.registration import register
from simtrust.simulators.shifts import Shift, parse_shifts

__all__ = ["Shift", "make_joint_simulator", "make_simulator", "parse_shifts"]

register()
