"""A film of one evaluation episode of a trained policy."""

import io

import numpy as np
from PIL import Image, ImageDraw

from simtrust.errors import SimulatorError
from simtrust.evaluation.returns import episode_steps
from simtrust.reports.animation import FRAMES_PER_SECOND, HEIGHT, WIDTH
from simtrust.reports.run_record import RunRecord
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.rendering import Renderer
from simtrust.training.policy import Policy, evaluation_instances, start_seeds

SECONDS = 8.0
COLOURS = 64


def draw_film(run: RunRecord) -> tuple[bytes, str]:
    """An animated GIF of an episode's beginning, in real time, and what it shows.

    It shows the seed whose final return is the median, where the run was evaluated.

    Raises:
        SimtrustError: no picture can be drawn here, the environment is not built in, so that it has no
            model that could be drawn, or the run has no checkpoint yet.
    """
    if find_built_in(run.evaluation_environment) is None:
        raise SimulatorError(f"{run.evaluation_environment} is not built in, so it has no model to draw")
    policy = Policy(run.directory)
    shown = _typical(run, policy.seeds)
    environment = evaluation_instances(policy, run.evaluation_environment, episodes=1)
    # A built-in task, which has a model and a state.
    task: object = environment.unwrapped
    model, time_step = task.model, task.time_step  # pyright: ignore[reportAttributeAccessIssue]
    renderer = Renderer(model, width=WIDTH, height=HEIGHT, camera=model.camera(0).name)
    every = max(round(1 / (FRAMES_PER_SECOND * time_step)), 1)
    frames = []
    try:
        steps = episode_steps(
            environment, policy, runs=len(policy.seeds), seeds=start_seeds(policy, episodes=1, seed=0)
        )
        for number, step in enumerate(steps):
            if not step.running[shown] or number * time_step >= SECONDS:
                break
            if number % every == 0:
                position = task.state[0][shown]  # pyright: ignore[reportAttributeAccessIssue]
                frames.append(_labelled(renderer.frame(position), number * time_step))
    finally:
        renderer.close()
        environment.close()
    told = (
        f"An episode of seed {policy.seeds[shown]} after {policy.step:,} steps in "
        f"{run.evaluation_environment}, in real time: its first {len(frames) * every * time_step:.1f} s."
    )
    return _gif(frames, round(1000 * every * time_step)), told


def _typical(run: RunRecord, seeds: tuple[int, ...]) -> int:
    """The index of the seed with the median final return; the first, if none has any."""
    if run.final is None or run.final.seeds != seeds:
        return 0
    order = np.argsort(run.final.mean)
    return int(order[(len(order) - 1) // 2])


def _labelled(picture: np.ndarray, seconds: float) -> Image.Image:
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((10, 8), f"{seconds:.1f} s", fill="black", font_size=14)
    return image.quantize(COLOURS)


def _gif(frames: list[Image.Image], milliseconds: int) -> bytes:
    file = io.BytesIO()
    first, *rest = frames
    first.save(file, "GIF", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return file.getvalue()
