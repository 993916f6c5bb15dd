"""Instances in worker processes: the same rows as in one process, errors that say where, none left over."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import psutil
import pytest

from simtrust.errors import ConfigError, SimulatorError
from simtrust.simulators import make_simulator, worker_handle

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def make():
    """``make(name, ...)`` makes a simulator which is closed at the test's end; then no process is left."""
    made = []

    def make(name, **options):
        made.append(make_simulator(name, **options))
        return made[-1]

    yield make
    for simulator in made:
        simulator.close()
    assert not multiprocessing.active_children()


def rows(simulator, *, steps=25, seed=5):
    """All that a simulator answers in some steps, with restarts of those that ended, some of them seeded."""
    generator, answers = np.random.default_rng(0), []
    answers.append(simulator.reset(seed=seed, options={"track": "wet"}))
    for step in range(steps):
        actions = generator.uniform(-1, 1, simulator.action_space.shape).astype(np.float32)
        answers.append(simulator.step(actions))
        ended = answers[-1][2] | answers[-1][3]
        if ended.any():
            seeds = [step if index == 0 else None for index in range(simulator.num_envs)]
            answers.append(simulator.reset(seed=seeds, options={"reset_mask": ended}))
    return answers


def plain(answers):
    """With every array as its bytes and type, so that == compares bits."""

    def one(value):
        if isinstance(value, np.ndarray):
            bits = value.tolist() if value.dtype == object else value.tobytes()
            return (str(value.dtype), value.shape, bits)
        return {k: one(v) for k, v in value.items()} if isinstance(value, dict) else value

    return [tuple(one(value) for value in answer) for answer in answers]


@pytest.mark.parametrize(
    ("name", "count"), [("unreliable:Cart", 1), ("unreliable:Cart", 2), ("Pendulum-v1", 5)]
)
def test_rows_are_those_of_one_process_bit_for_bit(make, name, count):
    alone = make(name, num_envs=3, max_episode_steps=7)
    shared = make(name, num_envs=3, max_episode_steps=7, workers=count)
    expected = plain(rows(alone))
    assert plain(rows(shared)) == expected
    assert sum(len(answer) == 2 for answer in expected) > 3
    assert len(multiprocessing.active_children()) == min(count, 3)
    assert shared.single_observation_space == alone.single_observation_space
    assert shared.action_space == alone.action_space
    assert shared.metadata == alone.metadata
    assert str(shared) == str(alone)


def test_answers_are_not_overwritten_by_later_ones(make):
    simulator = make("unreliable:Cart", num_envs=2, workers=1)
    first, _ = simulator.reset(seed=0)
    kept = first.copy()
    simulator.step(np.ones((2, 1), np.float32))
    assert np.array_equal(first, kept)


def push(simulator, instance):
    """Two steps, and a third in which one instance is pushed with 1."""
    simulator.reset(seed=0)
    actions = np.zeros((simulator.num_envs, 1), np.float32)
    for _ in range(2):
        simulator.step(actions)
    actions[instance] = 1.0
    simulator.step(actions)


@pytest.mark.parametrize("count", [0, 2])
def test_what_an_instance_raises_is_named_and_can_be_gone_on_from(make, count):
    simulator = make("unreliable:Raises", num_envs=3, workers=count)
    place = r"unreliable:Raises, instance 2 of 3, step 3 since its reset, action \[1.\]: "
    with pytest.raises(SimulatorError, match=place + ".*ZeroDivisionError: the motor came off") as caught:
        push(simulator, 2)
    if count:
        assert "in act" in str(caught.value.__cause__)
    with pytest.raises(SimulatorError, match="reset it before this step"):
        simulator.step(np.zeros((3, 1), np.float32))
    again, fresh = plain(rows(simulator)), plain(rows(make("unreliable:Raises", num_envs=3)))
    assert again == fresh


@pytest.mark.parametrize(
    ("name", "told"),
    [("Killed", r"was killed by SIGKILL \(was memory short\?\)"), ("Exits", "ended with exit status 3")],
)
def test_a_worker_that_ends_is_named_and_leaves_nothing(make, name, told):
    # The first worker has instances 0 and 1.
    simulator = make(f"unreliable:{name}", num_envs=3, workers=2)
    processes = multiprocessing.active_children()
    place = rf"unreliable:{name}, instance 1 of 3, step 3 since its reset, action \[1.\]: .*"
    with pytest.raises(SimulatorError, match=place + told):
        push(simulator, 1)
    assert not multiprocessing.active_children()
    assert not any(psutil.pid_exists(process.pid) for process in processes)
    with pytest.raises(SimulatorError, match="were ended; make the simulator anew"):
        simulator.reset(seed=0)


def test_a_worker_killed_between_steps_is_found_at_the_next(make):
    simulator = make("unreliable:Cart", num_envs=2, workers=2)
    simulator.reset(seed=0)
    victim = simulator.env._workers[1].process
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    with pytest.raises(SimulatorError, match=r"instance 1 of 2, step 1 since its reset.*SIGKILL"):
        simulator.step(np.zeros((2, 1), np.float32))


def test_an_interrupt_ends_the_workers_even_in_a_long_step(make, monkeypatch):
    monkeypatch.setattr(worker_handle, "GRACE_SECONDS", 0.2)
    simulator = make("unreliable:Hangs", num_envs=2, workers=2)
    simulator.reset(seed=0)
    processes = multiprocessing.active_children()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            push(simulator, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not any(psutil.pid_exists(process.pid) for process in processes)


def test_closing_closes_every_environment_where_it_was_made(make):
    simulator = make("unreliable:Process", num_envs=3, workers=2)
    _, info = simulator.reset(seed=0)
    assert len(set(info["process"])) == 2 and os.getpid() not in info["process"]
    assert set(info["folder"]) == {str(Path.cwd())}
    simulator.close()
    closed = [int(file.name.split("-")[1]) for file in Path().glob("closed-*")]
    assert sorted(closed) == sorted(info["process"])
    simulator.close()


def test_workers_end_with_the_simulator_that_nobody_holds():
    simulator = make_simulator("unreliable:Cart", num_envs=1, workers=1)
    assert multiprocessing.active_children()
    del simulator
    assert not multiprocessing.active_children()


KILLED = """
import os, signal
from simtrust.simulators import make_simulator

if __name__ == "__main__":
    simulator = make_simulator("unreliable:Cart", num_envs=2, workers=2)
    print(*[worker.process.pid for worker in simulator.env._workers], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(script):
    path = Path("script.py")
    path.write_text(script)
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    return subprocess.run([sys.executable, path], capture_output=True, text=True, env=environment, timeout=60)


def test_workers_end_with_a_main_process_that_was_killed():
    done = run(KILLED)
    assert done.returncode == -signal.SIGKILL
    processes = [int(word) for word in done.stdout.split()]
    assert len(processes) == 2
    limit = time.monotonic() + 20
    while any(psutil.pid_exists(process) for process in processes):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_script_without_a_main_guard_is_told_how_to_have_one():
    done = run(KILLED.replace('if __name__ == "__main__":', "if True:"))
    assert done.returncode == 1
    assert re.search("instance [01] of 2: its worker process ended with exit status 1", done.stderr)
    assert 'under `if __name__ == "__main__":`' in done.stderr


def test_a_factory_is_found_wherever_this_process_finds_it(make, monkeypatch, tmp_path):
    (tmp_path / "of_the_user.py").write_text("from unreliable import Cart\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert make("of_the_user:Cart", num_envs=1, workers=1).reset(seed=0)[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "only_here:Cart",
            r"only_here:Cart: No module named 'only_here'.*\(in a worker process",
        ),
        ("unreliable:Missing", "cannot import the factory: AttributeError.*in a worker process"),
        ("unreliable:same_one", "must return a new environment at every call"),
        (
            "unreliable:of_two_kinds",
            r"the spaces of instance 1 are .*\(2,\).*instance 0 .*\(3,\)",
        ),
        ("unreliable:DiesWhenMade", "instance [02] of 3: its worker process ended with exit status 7"),
        ("CartPole-v1", "action space is Discrete"),
        ("Pendulun-v1", "did you mean Pendulum-v1"),
    ],
)
def test_what_a_worker_cannot_make_is_refused_and_leaves_nothing(monkeypatch, name, message):
    monkeypatch.setitem(sys.modules, "only_here", types.ModuleType("only_here"))
    with pytest.raises(SimulatorError, match=message):
        make_simulator(name, num_envs=3, workers=2)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 2])
def test_instances_are_set_to_the_observations_given(make, count):
    simulator = make("unreliable:Settable", num_envs=3, workers=count)
    wanted = np.array([[0.5, 1.0], [-2.0, 0.25], [3.0, -4.0]], np.float32)
    assert simulator.set_observations(wanted).all()
    moved, *_ = simulator.step(np.zeros((3, 1), np.float32))
    assert np.abs(moved - wanted - [[0.1, 0], [0.025, 0], [-0.4, 0]]).max() < 0.1
    wanted[1, 0] = 101
    with pytest.raises(SimulatorError, match=r"instance 1 of 3, at reset: .*off the rails"):
        simulator.set_observations(wanted)


def test_what_cannot_be_set_says_so(make):
    simulator = make("unreliable:Cart", num_envs=2, workers=2)
    with pytest.raises(SimulatorError, match=r"give the environment's class a method set_observation"):
        simulator.check_settable()


def test_an_info_that_cannot_be_sent_is_told(make):
    simulator = make("unreliable:Unsendable", num_envs=2, workers=1)
    simulator.reset(seed=0)
    with pytest.raises(SimulatorError, match=r"instance 0 of 2, step 1 since.*its info.* cannot be sent"):
        simulator.step(np.zeros((2, 1), np.float32))
    simulator.reset(seed=0)


def test_built_in_tasks_need_no_workers():
    with pytest.raises(ConfigError, match="Hopper-v5 is built in and steps its instances on several cores"):
        make_simulator("hopper", num_envs=2, workers=2)
    with pytest.raises(ConfigError, match="workers must be an integer of at least 0, got -1"):
        make_simulator("Pendulum-v1", num_envs=2, workers=-1)
