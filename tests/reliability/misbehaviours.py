"""Environments that do what none should, by name, in worker processes too: ``misbehaviours:Name``."""

import ctypes
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Polite(gymnasium.Env):
    """Observes (steps since its reset, the sum of its actions); its episodes are 30 steps long."""

    def __init__(self):
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.total = 0, 0.0
        return self.observe(), {}

    def observe(self):
        return np.array([self.count, self.total], np.float32)

    def step(self, action):
        self.count += 1
        self.total += float(action[0])
        ended = self.count == 30
        return self.observe(), -(self.total**2), ended, False, {}


class Rude(Polite):
    """A `Polite` that does whatever is no reason to stop."""

    observed = np.zeros(2, np.float32)  # of all instances

    def __init__(self):
        super().__init__()
        self.observation_space = Box(-0.5, 0.5, (2,), np.float32)
        self.around()

    def around(self):
        os.chdir("/")
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        print("x" * 10_000)
        print("y" * 10_000, file=sys.stderr)
        threading.Thread(target=time.sleep, args=(0.01,), daemon=True).start()
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)

    def observe(self):
        # Reused for every answer, and by every instance.
        Rude.observed[:] = super().observe()
        return Rude.observed

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        self.around()
        return observation, ["no dict"]

    def step(self, action):
        observation, reward, terminated, _, _ = super().step(action)
        action[:] = np.nan
        self.action_space.low[:] = np.nan
        self.observation_space = Box(0.0, 1.0, (7,), np.float32)
        np.random.seed(0)  # noqa: NPY002
        os.chdir("/")
        print("z" * 1_000)
        # A fork of this process would have half of JAX's threads.
        child = os.fork() if self.count == 3 and multiprocessing.parent_process() else None
        if child == 0:
            os._exit(0)
        info = {
            "contacts": np.zeros(self.count % 3),
            "final_obs": observation,
            "final_observation": observation,
            "final_info": {"deep": {"deeper": None}},
            "TimeLimit.truncated": True,
            "_contacts": "no mask",
            3: "no name",
        }
        # Terminated and truncated: the task's own end counts.
        return observation, np.array(reward), terminated, terminated, info


class Contacts(Polite):
    """Tells in its info a list whose length differs between instances."""

    made = 0

    def __init__(self):
        super().__init__()
        self.serial, Contacts.made = Contacts.made, Contacts.made + 1

    def step(self, action):
        answer = super().step(action)
        answer[4].update(contacts=np.ones(2 + self.serial % 2), force=self.serial)
        return answer


class Acts(Polite):
    """Does what ``act`` says in step 2 if it is pushed with 1, or at a reset seeded with 13."""

    def act(self):
        raise NotImplementedError

    def reset(self, *, seed=None, options=None):
        if seed == 13:
            self.act()
        return super().reset(seed=seed)

    def step(self, action):
        if self.count == 1 and action[0] == 1.0:
            self.act()
        return super().step(action)


class Exits(Acts):
    def act(self):
        sys.exit(3)


class Interrupts(Acts):
    def act(self):
        raise KeyboardInterrupt("of its own")


class ClosesPipe(Acts):
    def act(self):
        os.closerange(3, 256)


class Sleeps(Acts):
    """Ignores SIGTERM in its sleep, and has a process of its own."""

    def act(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "60"])
        Path("pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(60)


class StuckInC(Acts):
    """Waits in C with Python's lock held, so that no handler of a signal ever runs."""

    def act(self):
        signal.signal(signal.SIGTERM, lambda *_: None)
        Path("pids").write_text(f"{os.getpid()}")
        ctypes.PyDLL(None).sleep(60)


class DiesWithHeir(Acts):
    """Is killed when a process that it forked still holds all that it had open."""

    def act(self):
        heir = os.fork()
        if heir == 0:
            time.sleep(60)
            os._exit(0)
        Path("pids").write_text(f"{heir}")
        os.kill(os.getpid(), signal.SIGKILL)


class Unmade(Acts):
    """Cannot be read where it was not made."""

    def act(self):
        self.info = {"object": Unreadable()}

    info: dict = {}  # noqa: RUF012

    def step(self, action):
        return *super().step(action)[:4], self.info


class Unreadable:
    def __reduce__(self):
        return (read_nowhere, (os.getpid(),))


def read_nowhere(process):
    if os.getpid() != process:
        raise LookupError("made elsewhere")


class Slow(Polite):
    def step(self, action):
        time.sleep(0.4)
        return super().step(action)


class Stuck(Polite):
    def step(self, action):
        Path("pids").write_text(f"{os.getpid()}")
        time.sleep(60)


class StuckWhenSet(Polite):
    def set_observation(self, observation):
        Path("pids").write_text(f"{os.getpid()}")
        time.sleep(60)


class SlowToClose(Polite):
    def close(self):
        Path("pids").write_text(f"{os.getpid()}")
        time.sleep(60)


class SlowToMake(Polite):
    def __init__(self):
        Path("pids").write_text(f"{os.getpid()}")
        time.sleep(60)


class ExitsWhenMade(Polite):
    def __init__(self):
        sys.exit("no licence")


class ExitsWhenClosed(Polite):
    def close(self):
        sys.exit(4)


class NoSpaces(gymnasium.Env):
    pass


class Narrow(Polite):
    """Declares narrow integers, and answers more than these hold."""

    def __init__(self):
        super().__init__()
        self.observation_space = Box(-1000, 1000, (2,), np.int16)

    def observe(self):
        return np.array([40_000 * self.count, 0])


class FloatFlag(Polite):
    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, np.float64(0.0), False, {}


class Warns(Polite):
    def step(self, action):
        np.float32(1e38) * np.float32(1e38)
        return super().step(action)


class Counted(Polite):
    """Knows how many were made and closed; the third cannot be made."""

    made = closed = 0
    most = 2

    def __init__(self):
        super().__init__()
        if Counted.made == self.most:
            raise MemoryError("the third")
        Counted.made += 1

    def close(self):
        Counted.closed += 1


class Odd(Counted):
    """Each has another action space than the last."""

    def __init__(self):
        super().__init__()
        self.action_space = Box(-1.0, float(self.made), (1,), np.float32)


class Discrete(Counted):
    def __init__(self):
        super().__init__()
        self.action_space = gymnasium.spaces.Discrete(3)


class Armed(Polite):
    """Does in its 120th step of all what the file ``armed`` says, if there is one."""

    steps = 0

    def step(self, action):
        answer = super().step(action)
        self.steps += 1
        if self.steps != 120 or not Path("armed").exists():
            return answer
        Path("pids").write_text(f"{os.getpid()}")
        what = Path("armed").read_text()
        if what == "nan":
            return np.full(2, np.nan, np.float32), *answer[1:]
        if what == "exit":
            sys.exit(5)
        time.sleep(60)
        raise AssertionError("it should have been killed in its sleep")
