"""Pictures of a MuJoCo model without a display."""

# MuJoCo ships no type stubs.
# pyright: reportAttributeAccessIssue=false

import atexit
import ctypes.util
import importlib
import os
import sys
import weakref

import mujoco
import numpy as np

from simtrust.errors import SimulatorError

MAX_GEOMS = 1000


def _make_context(width: int, height: int):
    """An OpenGL context that needs no display: EGL where there is one, else OSMesa (software).

    `mujoco.Renderer` would use what MUJOCO_GL said when MuJoCo was imported, which is long ago, and by
    default on Linux is GLFW, which needs a display.
    """
    name = os.environ.get("MUJOCO_GL", "").lower().strip()
    if not name and sys.platform == "linux":
        libraries = {"egl": "EGL", "osmesa": "OSMesa"}
        name = next((name for name, library in libraries.items() if ctypes.util.find_library(library)), "")
    if name in ("egl", "osmesa"):
        return importlib.import_module(f"mujoco.{name}").GLContext(width, height)
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        # GLFW would fail as well, and once more when its remains are collected.
        raise RuntimeError("there is no display, and neither EGL nor OSMesa")
    return mujoco.GLContext(width, height)


def _release(drawing, context) -> None:
    context.make_current()
    drawing.free()
    context.free()


class Renderer:
    """Draws states of one model from one of its cameras.

    Args:
        model: whose states are drawn; its offscreen buffer must be large enough.
        width: pixels.
        height: pixels.
        camera: name of the camera.

    Raises:
        SimulatorError: no OpenGL that works without a display is to be had here.
    """

    def __init__(self, model: mujoco.MjModel, *, width: int, height: int, camera: str) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        self._scene, self._options = mujoco.MjvScene(model, MAX_GEOMS), mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera).id
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        try:
            self._context = _make_context(width, height)
            self._context.make_current()
            self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        except Exception as error:
            raise SimulatorError(
                f"cannot draw pictures here ({type(error).__name__}: {error}); install OpenGL for machines "
                "without a display, such as Debian's libosmesa6 or libegl1 with a driver, and if both are "
                "there, choose with the environment variable MUJOCO_GL=osmesa or MUJOCO_GL=egl"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        self._release = weakref.finalize(self, _release, self._drawing, self._context)
        # Registered by ourselves, after MuJoCo's own end of EGL, so that it runs before that.
        self._release.atexit = False
        atexit.register(self._release)

    def frame(self, position: np.ndarray) -> np.ndarray:
        """A picture [height, width, 3] uint8 of the model at generalised position ``[nq]``."""
        self._data.qpos[:] = position
        mujoco.mj_forward(self._model, self._data)
        # An endless floor is drawn around where the scene's camera was so far.
        mujoco.mjv_updateCamera(self._model, self._data, self._camera, self._scene)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(
            self._model, self._data, self._options, None, self._camera, everything, self._scene
        )
        # Another renderer's may be the current one.
        self._context.make_current()
        mujoco.mjr_render(self._viewport, self._scene, self._drawing)
        picture = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._viewport, self._drawing)
        # OpenGL's first row is the lowest.
        return picture[::-1].copy()

    def close(self) -> None:
        """Give the graphics memory back; nothing can be drawn any more."""
        self._release()
