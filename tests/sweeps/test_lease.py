"""Two processes never train the same run: who has the lease, who waits, and who finds out that it is lost."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from simtrust.errors import RunError, RunWarning
from simtrust.sweeps.lease import Lease, LeaseLost, leased
from simtrust.sweeps.places import RemoteFolder, SharedFolder

SECONDS = 3.0
FILE = "leases/a.json"


@pytest.fixture(params=["shared", "remote"])
def place(request, tmp_path):
    if request.param == "remote":
        pytest.importorskip("fsspec")
        return RemoteFolder(f"file://{tmp_path}/far")
    return SharedFolder(str(tmp_path / "near"))


def stored(place, **changes) -> bytes:
    """A lease that somebody holds, on a machine of which nothing is known."""
    holder = {
        "host": "elsewhere",
        "pid": 1,
        "process": "other/pid/1 1",
        "deaths": 0,
        "token": "x",
        "signs": 1,
    }
    content = json.dumps({**holder, **changes}).encode()
    place.write(FILE, content)
    return content


def test_it_is_there_while_it_is_held_and_gone_afterwards(place):
    with leased(place, "a", SECONDS) as lease:
        assert json.loads(place.read(FILE))["pid"] == os.getpid()
        lease.confirm()
    assert place.read(FILE) is None


def test_one_of_many_at_a_time(place):
    """Threads that hold it at once would find each other in the list."""
    inside, most = [], []

    def work() -> None:
        with leased(place, "a", 6.0):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.2)
            inside.pop()

    workers = [threading.Thread(target=work) for _ in range(4)]
    with pytest.warns(RunWarning, match="being trained by process"):
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert most == [1, 1, 1, 1]


def test_who_gives_signs_of_life_keeps_it(place):
    with leased(place, "a", 1.0):
        before = json.loads(place.read(FILE))["signs"]
        waiting = threading.Thread(target=Lease(place, "a", 1.0).take, daemon=True)
        with pytest.warns(RunWarning, match="has given no sign of life for 1 s"):
            waiting.start()
            waiting.join(2.5)
        assert waiting.is_alive()
        assert json.loads(place.read(FILE))["signs"] > before + 5
    waiting.join(SECONDS)
    assert not waiting.is_alive()


def test_who_gives_none_is_waited_for_and_counted(place):
    stored(place, deaths=2)
    began = time.monotonic()
    with pytest.warns(RunWarning, match="process 1 of elsewhere"), leased(place, "a", SECONDS) as lease:
        assert time.monotonic() - began >= SECONDS
        assert lease.deaths == 3
        lease.reached_checkpoint()
        assert json.loads(place.read(FILE))["deaths"] == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a process has no such name")
@pytest.mark.parametrize("ended", [True, False])
def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(place, ended):
    code = "import sys; from simtrust.sweeps.lease import _process; print(_process(int(sys.argv[1])))"
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    name = subprocess.run(
        [sys.executable, "-c", code, str(sleeper.pid)], capture_output=True, text=True, check=True
    ).stdout.strip()
    stored(place, process=name, pid=sleeper.pid)
    if ended:
        # Not waited for: a zombie has ended too.
        sleeper.kill()
        time.sleep(0.2)
    taking = threading.Thread(target=Lease(place, "a", 600.0 if ended else 2.0).take, daemon=True)
    began = time.monotonic()
    if ended:
        taking.start()
        time.sleep(1.0)
        assert json.loads(place.read(FILE))["pid"] == os.getpid()
    else:
        with pytest.warns(RunWarning):
            taking.start()
            taking.join()
        assert time.monotonic() - began >= 2.0
    sleeper.kill()
    sleeper.wait()


def test_a_damaged_lease_is_waited_for_as_any(place):
    place.write(FILE, b"\xff not JSON")
    began = time.monotonic()
    with pytest.warns(RunWarning), leased(place, "a", SECONDS):
        assert time.monotonic() - began >= SECONDS


def test_who_lost_it_is_told_and_leaves_it_alone(place):
    with pytest.raises(LeaseLost), leased(place, "a", SECONDS) as lease:
        other = stored(place)
        lease.confirm()
    assert place.read(FILE) == other


def test_who_lost_it_notices_without_asking(place):
    with leased(place, "a", 1.0) as lease:
        other = stored(place)
        time.sleep(0.6)
        with pytest.raises(LeaseLost):
            lease.check()
    assert place.read(FILE) == other


def test_who_cannot_reach_the_storage_has_lost_it(place, monkeypatch):
    with leased(place, "a", 1.0) as lease:

        def unreachable(*_):
            raise RunError("no route to host")

        monkeypatch.setattr(type(place), "write", unreachable)
        time.sleep(0.4)
        lease.check()
        time.sleep(1.2)
        with pytest.raises(LeaseLost):
            lease.check()
