"""MuJoCo models from their XML files, as they are or edited before they are compiled."""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mujoco

from simtrust.errors import SimulatorError

# Gymnasium's half_cheetah.xml uses it, which no user of ours can change.
_DEPRECATED_IN_GYMNASIUM = "settotalmass"


def load_model_file(path: Path, task_name: str) -> mujoco.MjModel:
    """A MuJoCo model from its XML file.

    Raises:
        SimulatorError: the file is missing or unreadable.
    """
    with _reading(path, task_name):
        return mujoco.MjModel.from_xml_path(str(path))


def load_edited_model_file(
    path: Path, task_name: str, edit: Callable[[mujoco.MjSpec], None]
) -> mujoco.MjModel:
    """The same, with the specification edited in memory before MuJoCo compiles it.

    Raises:
        SimulatorError: the file is missing or unreadable, or does not compile once it is edited.
    """
    with _reading(path, task_name):
        specification = mujoco.MjSpec.from_file(str(path))
        edit(specification)
        return specification.compile()


@contextmanager
def _reading(path: Path, task_name: str) -> Iterator[None]:
    try:
        with _mujoco_warnings_raised_in_python():
            yield
    except ValueError as error:
        raise SimulatorError(f"{task_name}: cannot load the model {path}: {error}") from error


@contextmanager
def _mujoco_warnings_raised_in_python() -> Iterator[None]:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT into the working directory while it loads a model."""

    def report(message: str) -> None:
        if _DEPRECATED_IN_GYMNASIUM not in message:
            warnings.warn(message, stacklevel=2)

    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(report)
    try:
        with warnings.catch_warnings():
            # A specification's compiler says it once more, by Python's own means.
            warnings.filterwarnings("ignore", f".*{_DEPRECATED_IN_GYMNASIUM}", UserWarning)
            yield
    finally:
        mujoco.set_mju_user_warning(previous)
