"""Pictures of a MuJoCo model without a display."""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import ctypes.util
import os
import sys
from types import ModuleType

import numpy as np

from simtrust.errors import SimulatorError


def _mujoco_with_offscreen() -> ModuleType:
    """MuJoCo with an OpenGL that needs no display: EGL where there is one, else OSMesa (software)."""
    if sys.platform == "linux" and "MUJOCO_GL" not in os.environ:
        # MuJoCo's own default on Linux is GLFW, which needs a display.
        for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
            if ctypes.util.find_library(library):
                os.environ["MUJOCO_GL"] = name
                break
    import mujoco

    return mujoco


class Renderer:
    """Draws states of one model from one of its cameras.

    Args:
        model: whose states are drawn.
        width: pixels.
        height: pixels.
        camera: name of the camera.

    Raises:
        SimulatorError: no OpenGL that works without a display is to be had here.
    """

    def __init__(self, model, *, width: int, height: int, camera: str) -> None:
        mujoco = _mujoco_with_offscreen()
        self._forward = mujoco.mj_forward
        self._model, self._data, self._camera = model, mujoco.MjData(model), camera
        try:
            self._renderer = mujoco.Renderer(model, height, width)
        except Exception as error:
            raise SimulatorError(
                f"cannot draw pictures here ({type(error).__name__}: {error}); install OpenGL for machines "
                "without a display, such as Debian's libosmesa6 or libegl1 with a driver"
            ) from error

    def frame(self, position: np.ndarray) -> np.ndarray:
        """A picture [height, width, 3] uint8 of the model at generalised position ``[nq]``."""
        self._data.qpos[:] = position
        self._forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera=self._camera)
        return self._renderer.render()

    def close(self) -> None:
        """Give the graphics memory back."""
        self._renderer.close()
