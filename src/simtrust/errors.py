"""The errors a user can cause, each of which says what is wrong, where, and how to mend it.

The command line prints these without a traceback; everything else is a defect of ours.
"""

from typing import Any


class SimtrustError(Exception):
    """Base class of every error that a user's input can cause."""


class DataError(SimtrustError, ValueError):
    """A log cannot be used. The message names file, key, row and remedy."""


class ConfigError(SimtrustError, ValueError):
    """An option has a value that cannot work. The message names the option."""


class ShiftError(ConfigError):
    """A shift of the simulator is malformed, unsupported by the task, or would change nothing."""


class SimulatorError(SimtrustError, RuntimeError):
    """A simulator could not be made, raised, or returned something unusable.

    The message names the environment, the step and the action that led there.
    """


class InstanceError(SimulatorError):
    """One ``instance`` of a simulator's ``instances`` failed; ``told``, after their names, says how."""

    def __init__(self, simulator: str, instance: int, instances: int, told: str):
        super().__init__(f"{simulator}, instance {instance} of {instances}{told}")
        self.instance, self.told = instance, told

    def of(self, simulator: str, instance: int, instances: int) -> "InstanceError":
        """The same error in terms of another simulator, which shares its instances with this one."""
        return InstanceError(simulator, instance, instances, self.told)


class NonFiniteAnswer(InstanceError):
    """An instance answered NaN or infinity: ``values`` as ``what``, such as a reward."""

    def __init__(self, simulator: str, instance: int, instances: int, told: str, what: str, values: Any):
        super().__init__(simulator, instance, instances, told)
        self.what, self.values = what, values

    def of(self, simulator: str, instance: int, instances: int) -> "NonFiniteAnswer":
        """As `InstanceError.of`."""
        return NonFiniteAnswer(simulator, instance, instances, self.told, self.what, self.values)


class RunError(SimtrustError, RuntimeError):
    """A run directory is locked, incomplete, damaged, or of a newer version."""


class ExportError(SimtrustError, RuntimeError):
    """What would run on the robot could not be written, or would not compute the same."""


class RunWarning(UserWarning):
    """A run goes on under conditions in which it need not repeat itself; the message says which."""


class DataWarning(UserWarning):
    """Something about a log was assumed that may not be so; the message says what, and the remedy."""


def describe_error(error: Exception) -> str:
    """An exception in one line: its type and message."""
    return f"{type(error).__name__}: {error}"
