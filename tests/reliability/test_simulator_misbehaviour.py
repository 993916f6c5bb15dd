"""A simulator may do anything: all goes on to the same bits, or stops where it is told, with all saved."""

import importlib
import multiprocessing
import os
import re
import signal
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest

import simtrust
from simtrust.data import save_dataset
from simtrust.errors import ConfigError, SimtrustError, SimulatorError
from simtrust.simulators import check_process, make_simulator, worker_handle, workers
from simtrust.simulators.checks import check_simulator
from simtrust.simulators.closing import close_all
from simtrust.training.collect import Collector
from simtrust.training.scaling import make_scaling

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make():
    """``make(name, ...)`` makes a simulator that is closed at the test's end; then no process is left."""
    made = []

    def make(name, **options):
        made.append(make_simulator(f"misbehaviours:{name}", **options))
        return made[-1]

    yield make
    close_all(*made)
    assert not multiprocessing.active_children()


@pytest.fixture
def counted(monkeypatch):
    """The class of environment that counts how many of it were made and closed."""
    counted = importlib.import_module("misbehaviours").Counted
    monkeypatch.setattr(counted, "made", 0)
    monkeypatch.setattr(counted, "closed", 0)
    return counted


def processes():
    """The processes that an environment told of, once it has."""
    limit = time.monotonic() + 30
    while not (told := Path("pids").read_text() if Path("pids").exists() else ""):
        assert time.monotonic() < limit
        time.sleep(0.02)
    return [int(word) for word in told.split()]


def assert_gone(pids):
    limit = time.monotonic() + 10
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.02)


def push(simulator, instance):
    """A step, and one in which one instance is pushed with 1."""
    actions = np.zeros((simulator.num_envs, 1), np.float32)
    simulator.step(actions)
    actions[instance] = 1.0
    simulator.step(actions)


PUSHED = r"instance 1 of 2, step 2 since its reset, action \[1.\]: .*"


def collected(make, name, **options):
    """The rows of 70 steps of two instances, and what was handed to the policy."""
    simulator = make(name, num_envs=2, **options)
    space = simulator.single_action_space
    scaling = make_scaling(
        None, space.low, space.high, 2, discount=0.99, normalise_observations=False, reward_scale=1.0
    )
    collector = Collector(simulator, scaling)
    collector.restart([1, 2])
    seen = []

    def explore(observation, keys, step):
        seen.append(observation)
        return np.sin(observation[..., :1] + np.arange(2)[:, None, None]).astype(np.float32)

    rollout = collector.collect(explore, None, step=0, count=70)
    return (*rollout.transitions, *seen), rollout.episode_returns


@pytest.mark.parametrize("count", [0, 1])
def test_rows_of_a_rude_simulator_are_those_of_a_polite_one(make, capfd, tmp_path, count):
    """Arrays reused or written into, changed spaces, odd infos, forks, prints, another working directory."""
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    rows, returns = collected(make, "Rude", workers=count)
    expected, expected_returns = collected(make, "Polite")
    assert returns == expected_returns
    assert all(a.tobytes() == b.tobytes() for a, b in zip(rows, expected, strict=True))
    assert rows[4].sum() == 2 * 2, "both flags set is an end that the task itself made"
    assert Path.cwd() == tmp_path
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert "zzz" in capfd.readouterr().out


@pytest.mark.parametrize("count", [0, 1])
def test_infos_that_do_not_fit_beside_each_other_are_left_out(make, count):
    simulator = make("Contacts", num_envs=2, workers=count)
    simulator.reset()
    info = simulator.step(np.zeros((2, 1), np.float32))[4]
    assert info["_contacts"].sum() == 1 and info["contacts"].sum() in (2, 3)
    assert info["_force"].all() and sorted(info["force"]) == [0, 1]


def test_the_spaces_are_those_at_the_beginning(make):
    simulator = make("Rude", num_envs=1)
    simulator.reset()
    simulator.step(np.zeros((1, 1), np.float32))
    assert simulator.single_action_space.low == -1 and simulator.single_observation_space.shape == (2,)
    assert (simulator.action_space.low == -1).all()


@pytest.mark.parametrize("count", [0, 1])
def test_sys_exit_is_an_error_like_any_other(make, count):
    simulator = make("Exits", num_envs=2, workers=count)
    simulator.reset(seed=0)
    with pytest.raises(SimulatorError, match=PUSHED + r"CalledExit: it called sys.exit\(3\)"):
        push(simulator, 1)
    with pytest.raises(SimulatorError, match=r"instance 1 of 2, at reset: .*sys.exit\(3\)"):
        simulator.reset(seed=[0, 13])
    simulator.reset(seed=0)


def test_sys_exit_in_making_importing_or_closing_is_told(make, monkeypatch):
    with pytest.raises(SimulatorError, match=r"the factory raised CalledExit: it called sys.exit\('no lic"):
        make("ExitsWhenMade", num_envs=1)
    with pytest.warns(RuntimeWarning, match=r"closing it raised CalledExit: it called sys.exit\(4\)"):
        close_all(make("ExitsWhenClosed", num_envs=1))
    Path("a_script.py").write_text("import sys\nsys.exit(6)\n")
    with pytest.raises(SimulatorError, match=r"cannot import the factory: CalledExit: .*exit\(6\)"):
        make_simulator("a_script:make", num_envs=1)


def test_an_interrupt_of_its_own_is_ctrl_c_here_and_an_error_in_a_worker(make):
    here, there = make("Interrupts", num_envs=2), make("Interrupts", num_envs=2, workers=1)
    here.reset()
    there.reset()
    with pytest.raises(KeyboardInterrupt):
        push(here, 1)
    with pytest.raises(SimulatorError, match=PUSHED + "the environment raised KeyboardInterrupt"):
        push(there, 1)
    there.reset()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Narrow", "step 1 since its reset.* does not fit its space's dtype int16"),
        ("FloatFlag", "terminated must be a bool, got np.float64"),
        ("Warns", "the environment raised RuntimeWarning: overflow"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(make, name, message):
    simulator = make(name, num_envs=1)
    simulator.reset()
    with pytest.raises(SimulatorError, match=message), warnings.catch_warnings():
        warnings.simplefilter("error")
        simulator.step(np.zeros((1, 1), np.float32))


def test_an_environment_without_spaces_is_refused(make):
    with pytest.raises(SimulatorError, match="misbehaviours:NoSpaces: it does not tell its spaces"):
        make("NoSpaces", num_envs=1)


@pytest.mark.parametrize("name", ["Counted", "Odd", "Discrete"])
def test_what_was_made_before_an_error_is_closed(make, counted, name):
    with pytest.raises(SimulatorError, match=r"the third|side by side|Discrete"):
        make(name, num_envs=2 if name == "Odd" else 3)
    assert counted.closed == counted.made > 0


def test_check_sim_closes_what_it_cannot_use(counted):
    assert [check.verdict for check in check_simulator("misbehaviours:Discrete")][-1] == "failed"
    assert counted.closed == counted.made > 0


@pytest.mark.parametrize(("name", "at"), [("Sleeps", "step"), ("StuckInC", "reset")])
def test_a_hang_is_killed_with_what_it_started(make, name, at):
    """It ignores SIGTERM, or never comes back from C."""
    simulator = make(name, num_envs=2, step_timeout=3.0)
    simulator.reset(seed=0)
    began = time.monotonic()
    place = PUSHED if at == "step" else "instance 1 of 2, at reset: .*"
    with pytest.raises(SimulatorError, match=place + r"WorkerLate: no answer within 3 s.*--step-timeout"):
        push(simulator, 1) if at == "step" else simulator.reset(seed=[0, 13])
    assert 3.0 <= time.monotonic() - began < 60
    assert_gone(processes())
    with pytest.raises(SimulatorError, match="were ended; make the simulator anew"):
        simulator.reset()


def test_a_limit_changes_nothing_that_check_sim_finds():
    def found(name, **options):
        checks = check_simulator(f"misbehaviours:{name}", **options)
        return [check for check in checks if check.name != "step time"]

    for name in ("Polite", "FloatFlag", "ExitsWhenClosed", "Discrete"):
        assert found(name, step_timeout=30.0) == found(name)
    with pytest.raises(SimulatorError, match=r"the factory raised CalledExit: .*no licence"):
        list(check_simulator("misbehaviours:ExitsWhenMade", step_timeout=30.0))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("name", "others", "place"),
    [
        ("Stuck", 0, r"step 1 since its reset, action \[.*\]"),
        # It hangs when an action is at its bound.
        ("StuckWhenSet", 9, "in set_observation"),
        ("Sleeps", 10, r"step \d+ since its reset, action \[1\.\]"),
    ],
)
def test_a_hang_is_the_last_finding_of_check_sim(name, others, place):
    *before, last = check_simulator(f"misbehaviours:{name}", step_timeout=2.0)
    assert len(before) >= others and all(check.verdict != "failed" for check in before)
    assert (last.name, last.verdict) == ("answers", "failed")
    told = rf"misbehaviours:{name}, {place}: no answer within 2 s, so its worker process was killed"
    assert re.match(told, last.seen), last.seen
    assert_gone(processes())
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("how", "told"), [("Make", "made"), ("Close", "closed")])
def test_check_sim_gives_more_time_to_make_and_to_close_a_simulator(monkeypatch, how, told):
    monkeypatch.setattr(check_process, "MAKING_SECONDS", 3.0)
    *_, found = check_simulator(f"misbehaviours:SlowTo{how}", step_timeout=1.0)
    assert re.search(rf"SlowTo{how}, while it was {told}: no answer within 3 s", found.seen)
    assert_gone(processes())


def test_a_limit_of_check_sim_that_cannot_be():
    with pytest.raises(ConfigError, match="--step-timeout"):
        list(check_simulator("misbehaviours:Polite", step_timeout=0.0))
    with pytest.raises(ConfigError, match="StandingStill-v0 is built in"):
        list(check_simulator("StandingStill-v0", step_timeout=1.0))


def test_the_limit_is_for_one_step_of_one_instance(make, monkeypatch):
    """Nine in one process take 3.6 s for their steps together, and in between nothing is asked."""
    monkeypatch.setattr(worker_handle, "LOOK_SECONDS", 0.05)
    simulator = make("Slow", num_envs=9, workers=1, step_timeout=3.0)
    simulator.reset()
    time.sleep(3.2)
    assert simulator.step(np.zeros((9, 1), np.float32))[0][:, 0].tolist() == [1] * 9


def test_the_time_in_which_the_program_was_stopped_does_not_count(make, monkeypatch):
    """As after Ctrl-Z: the clock runs on, and the workers were stopped too."""
    monkeypatch.setattr(worker_handle, "LOOK_SECONDS", 0.05)
    simulator = make("Slow", num_envs=1, step_timeout=2.0)
    simulator.reset()
    clock, began = time.monotonic, time.monotonic()
    monkeypatch.setattr(worker_handle.time, "monotonic", lambda: clock() + 100.0 * (clock() > began + 0.2))
    simulator.step(np.zeros((1, 1), np.float32))


def test_what_hangs_when_made_is_killed_after_its_own_limit(make, monkeypatch):
    monkeypatch.setattr(workers, "MAKING_SECONDS", 1.0)
    with pytest.raises(SimulatorError, match=r"instance 0 of 1: no answer within 1 s.*raise --step-timeout"):
        make("SlowToMake", num_envs=1, step_timeout=0.01)
    assert_gone(processes())


def test_what_hangs_when_closed_is_killed_after_a_grace(make, monkeypatch):
    monkeypatch.setattr(worker_handle, "GRACE_SECONDS", 0.5)
    simulator = make("SlowToClose", num_envs=1, workers=1)
    simulator.close()
    assert_gone(processes())


def test_built_in_simulators_need_no_limit_and_limits_are_positive():
    with pytest.raises(ConfigError, match=r"Hopper-v5 is built in.*--step-timeout 2"):
        make_simulator("hopper", num_envs=1, step_timeout=2)
    for wrong in (0, -1.0, float("nan"), float("inf"), "2"):
        with pytest.raises(ConfigError, match=r"step_timeout \(--step-timeout\) must be a positive number"):
            make_simulator("Pendulum-v1", num_envs=1, step_timeout=wrong)


def test_a_death_is_seen_though_another_process_holds_the_pipe(make):
    simulator = make("DiesWithHeir", num_envs=2, workers=1)
    simulator.reset(seed=0)
    began = time.monotonic()
    with pytest.raises(SimulatorError, match=PUSHED + "was killed by SIGKILL"):
        push(simulator, 1)
    assert time.monotonic() - began < 20
    for heir in processes():
        os.kill(heir, signal.SIGKILL)


def test_a_closed_pipe_is_told(make):
    simulator = make("ClosesPipe", num_envs=2, workers=1)
    simulator.reset(seed=0)
    with pytest.raises(SimulatorError, match=PUSHED + "its worker process (ended|closed)"):
        push(simulator, 1)


def test_an_answer_that_cannot_be_read_here_is_told_with_its_place(make):
    simulator = make("Unmade", num_envs=2, workers=1)
    simulator.reset(seed=0)
    with pytest.raises(SimulatorError, match=PUSHED + r"cannot be read in the main process \(LookupError"):
        push(simulator, 1)


def test_a_worker_killed_from_outside_in_a_reset_is_named(make):
    simulator = make("Sleeps", num_envs=2, workers=1)
    simulator.reset(seed=0)
    killer = threading.Thread(target=lambda: [os.kill(pid, signal.SIGKILL) for pid in processes()])
    killer.start()
    with pytest.raises(SimulatorError, match=r"instance 1 of 2, at reset: .*was killed by SIGKILL"):
        simulator.reset(seed=[0, 13])
    killer.join()


TINY = {
    "hidden_sizes": (16,),
    "batch_size": 16,
    "rollout_steps": 50,
    "checkpoint_every": 100,
    "evaluate_every": 0,
    "evaluation_episodes": 1,
    "steps": 200,
}


def train(out, *, sim="misbehaviours:Polite", **options):
    named = {"sim": sim, "real_env": "misbehaviours:Polite"}
    return simtrust.train("sac", quiet=True, out=out, **{**TINY, **named, **options})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The metrics of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        train(out)
    return (out / "metrics.jsonl").read_bytes()


def test_a_rude_simulator_trains_the_same_bits(unbroken, tmp_path):
    """Into a relative folder, which its working directory is not to move."""
    train("run", sim="misbehaviours:Rude")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == unbroken


@pytest.mark.parametrize(
    ("what", "options", "told"),
    [
        ("sleep", {"step_timeout": 3.0}, "no answer within 3 s"),
        ("sleep", {"sim_workers": 1}, "was killed by SIGKILL"),
        ("nan", {}, "observation dimension 0 is nan"),
        ("exit", {}, r"sys.exit\(5\)"),
    ],
    ids=["hang", "killed", "nan", "exit"],
)
def test_what_stops_a_training_loses_nothing(unbroken, tmp_path, what, options, told):
    """It stops at step 120; step 100 is saved, and the rest is as if nothing had happened."""
    Path("armed").write_text(what)
    killer = threading.Thread(target=lambda: [os.kill(pid, signal.SIGKILL) for pid in processes()])
    if told.endswith("SIGKILL"):
        killer.start()
    place = r"misbehaviours:Armed, instance 0 of 1, step 20 since its reset, action \["
    with pytest.raises(SimulatorError, match=place + ".*" + told) as caught:
        train("run", sim="misbehaviours:Armed", **options)
    assert "The training state at step 100 is saved" in caught.value.__notes__[-1]
    assert not multiprocessing.active_children()
    Path("armed").unlink()
    named = {"sim": "misbehaviours:Armed", "real_env": "misbehaviours:Polite"}
    assert simtrust.resume("run", quiet=True, **named).summary["steps"] == 200
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == unbroken


def test_a_limit_that_limits_nothing_is_refused():
    with pytest.raises(ConfigError, match="StandingStill-v0 are built in and wait for nothing; leave it out"):
        simtrust.train("sac", sim="StandingStill-v0", step_timeout=1.0, quiet=True, out="run")
    with pytest.raises(ConfigError, match="--step-timeout is 0"):
        train("run", step_timeout=0)


@pytest.fixture
def record(tmp_path):
    """``record(width)`` writes a log of 20 rows of observations so wide, in one episode."""

    def record(width):
        rows = np.random.default_rng(0).uniform(-1, 1, (20, width)).astype(np.float32)
        end = np.arange(20) == 19
        log = {"observations": rows, "actions": rows[:, :1], "rewards": rows[:, 0]}
        log |= {"next_observations": np.roll(rows, -1, 0), "terminals": end & False, "timeouts": end}
        return save_dataset(tmp_path / "log.hdf5", log)

    return record


def test_measuring_closes_a_simulator_that_the_log_does_not_fit(counted, record):
    with pytest.raises(SimtrustError, match="3 wide where simulator"):
        simtrust.measure_gap(record(3), "misbehaviours:Counted", quiet=True)
    assert counted.made == counted.closed == 1


def test_a_hang_ends_a_measurement(record):
    with pytest.raises(SimulatorError, match=r"misbehaviours:Stuck.*step 1 since.*no answer within 3 s"):
        simtrust.measure_gap(record(2), "misbehaviours:Stuck", step_timeout=3.0, quiet=True)
    assert_gone(processes())
    assert not multiprocessing.active_children()
    with pytest.raises(ConfigError, match="StandingStill-v0 is built in"):
        simtrust.measure_gap(record(4), "StandingStill-v0", step_timeout=0.5, quiet=True)
