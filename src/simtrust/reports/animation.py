"""A short film of the robot, drawn without a display."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from simtrust.simulators.rendering import Renderer
from simtrust.simulators.wheel_legged import STATE_NAMES, WHEEL_RADIUS

FRAMES_PER_SECOND = 20
WIDTH, HEIGHT = 320, 240


def animate(model, states: Mapping[str, np.ndarray], *, time_step: float, seconds: float, path: Path) -> Path:
    """Write an animated GIF of episodes one beside another, from label to true states ``[T, 4]``.

    A robot whose episode has ended stays as it was. ``model`` is the robot's MuJoCo model.

    Raises:
        SimulatorError: pictures cannot be drawn here.
    """
    renderer = Renderer(model, width=WIDTH, height=HEIGHT, camera="side")
    try:
        episodes = list(states.values())
        frames = [Image.fromarray(frame) for frame in _frames(renderer, episodes, time_step, seconds)]
    finally:
        renderer.close()
    for frame in frames:
        for number, label in enumerate(states):
            ImageDraw.Draw(frame).text((number * WIDTH + 10, 8), label, fill="black", font_size=16)
    first, *rest = (frame.quantize(64) for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=1000 // FRAMES_PER_SECOND, loop=0)
    return path


def _frames(
    renderer: Renderer, states: list[np.ndarray], time_step: float, seconds: float
) -> Iterator[np.ndarray]:
    every = round(1.0 / (FRAMES_PER_SECOND * time_step))
    lengths = [int((~np.isnan(s[:, 0])).sum()) for s in states]
    for index in range(0, round(seconds / time_step), every):
        at = [min(index, length - 1) for length in lengths]
        pictures = [renderer.frame(_pose(s[i])) for s, i in zip(states, at, strict=True)]
        yield np.concatenate(pictures, axis=1)


def _pose(state: np.ndarray) -> np.ndarray:
    """The model's position: x, z, tilt, and the wheel's turn against the body when it rolls."""
    tilt, x = (float(state[STATE_NAMES.index(name)]) for name in ("tilt", "position"))
    return np.array([x, 0.0, tilt, x / WHEEL_RADIUS - tilt])
