"""The memory that a run will take is predicted, and missed before anything is trained."""

import jax
import pytest

from simtrust.algorithms.options import AlgorithmOptions
from simtrust.errors import ConfigError
from simtrust.training import memory
from simtrust.training.config import TrainConfig
from simtrust.training.memory import (
    BASE_BYTES,
    DYNAMICS_MODEL_BYTES,
    GAP_MODEL_BYTES,
    NoRoomError,
    check_memory,
    predicted_memory,
)
from simtrust.training.setup import prepare

ROW = 4 * (2 * 3 + 1 + 2)
"""Of Pendulum."""
GIB = 2**30


def config(recipe="sac", **options) -> TrainConfig:
    return TrainConfig(recipe=recipe, algorithm=AlgorithmOptions(hidden_sizes=(4,)), **options)


@pytest.fixture(scope="module")
def algorithm(log):
    """``algorithm(recipe)`` for Pendulum."""

    def algorithm(recipe="sac"):
        real = None if recipe == "sac" else str(log)
        problem = prepare(config(recipe, real=real, sim="Pendulum-v1"))
        problem.close()
        return problem.algorithm

    return algorithm


def test_too_little_memory_is_told_before_training(train, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "available_memory", lambda: GIB // 4)
    with pytest.raises(ConfigError, match=r"GiB of memory, 0\.2 GiB are free; lower --buffer-capacity"):
        train(sim="Pendulum-v1", seeds=3)
    assert not (tmp_path / "run" / "config.json").exists()
    monkeypatch.undo()
    train(sim="Pendulum-v1")


def test_it_grows_with_what_is_kept(algorithm):
    of = lambda seeds, log, kept: predicted_memory(config(seeds=seeds), algorithm(), log, kept).machine  # noqa: E731
    more = [of(seeds, 0, 10**6) for seeds in (1, 2, 3)]
    assert more[1] - more[0] == more[2] - more[1] > 10**6 * ROW
    assert of(1, 10**6, 0) - of(1, 0, 0) == 3 * 10**6 * ROW


def test_a_measured_gap_takes_memory_for_its_fit_and_for_its_column(algorithm):
    """What else the two recipes keep is the same."""
    ours, theirs = algorithm("trust"), algorithm("h2o_a_dr")
    of = lambda algorithm, capacity: predicted_memory(config(), algorithm, 10**5, capacity).machine  # noqa: E731
    fit = of(ours, 0) - of(theirs, 0)
    waiting = 3 * min(config().checkpoint_every, config().steps) * 4
    assert fit == GAP_MODEL_BYTES + 3 * (10**5 + TrainConfig().gap_probe_rows) * ROW + waiting
    assert of(ours, 10**6) - of(theirs, 10**6) == fit + 4 * 10**6


def test_a_fitted_dynamics_model_takes_memory_and_so_do_its_predictions(algorithm):
    """What else the two recipes keep is the same, and none of the fit is for each seed."""
    ours, theirs = algorithm("h2o_reverse_kl"), algorithm("h2o")

    def more(rows: int, seeds: int) -> int:
        one, other = (predicted_memory(config(seeds=seeds), each, rows, 0) for each in (ours, theirs))
        return one.machine - other.machine

    assert more(10**5, 1) - more(0, 1) == more(10**5, 4) - more(0, 4) == 10**5 * (3 * ROW + 8 * 7)
    # Twenty batches of 128 rows: mean and deviation of each of five elites, and what these pass through.
    each = 20 * 128 * 5 * 4 * (2 * 3 + 3 * 200)
    assert [more(0, seeds) for seeds in (1, 4)] == [DYNAMICS_MODEL_BYTES + n * each for n in (1, 4)]


@pytest.fixture
def gpu(monkeypatch):
    """``gpu(machine, device)``: so many bytes are free on the machine and on its GPU."""

    def gpu(machine: int, device: int) -> None:
        monkeypatch.setattr(memory, "available_memory", lambda: machine)
        monkeypatch.setattr(memory, "free_device_memory", lambda: device)
        monkeypatch.setattr(memory, "device_kind", lambda: "NVIDIA H200")

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    return gpu


def test_on_a_gpu_buffers_and_agents_take_its_memory_and_the_log_both(algorithm, gpu):
    h2o, ours = algorithm("h2o"), config("h2o", seeds=5)
    before = predicted_memory(ours, h2o, 0, 0)
    assert before.machine > BASE_BYTES > before.device > 0
    with_buffers, with_log = predicted_memory(ours, h2o, 0, 10**6), predicted_memory(ours, h2o, 10**6, 0)
    assert (with_buffers.machine - before.machine, with_buffers.device - before.device) == (
        0,
        5 * 10**6 * ROW,
    )
    assert (with_log.machine - before.machine, with_log.device - before.device) == (
        3 * 10**6 * ROW,
        10**6 * ROW,
    )


def test_what_does_not_fit_a_gpu_is_told(algorithm, gpu):
    h2o, ours = algorithm("h2o"), config("h2o", seeds=45)
    needed = predicted_memory(ours, h2o, 10**5, 10**6)
    gpu(needed.machine, needed.device)
    check_memory(ours, h2o, 10**5, 10**6)
    gpu(needed.machine, GIB)
    with pytest.raises(NoRoomError, match=r"about 1\.[5-9] GiB of memory of NVIDIA H200, 1\.0 GiB are free"):
        check_memory(ours, h2o, 10**5, 10**6)
    gpu(GIB // 2, needed.device)
    with pytest.raises(NoRoomError, match=r"about \d\.\d GiB of memory, 0\.5 GiB are free; lower --buffer"):
        check_memory(ours, h2o, 10**5, 10**6)
