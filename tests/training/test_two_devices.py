"""As on a GPU: one device learns, the processor acts. Here both are processors, which JAX keeps apart."""

import json
import os
import subprocess
import sys

SCRIPT = """
import json, sys
from functools import partial
from pathlib import Path
import jax
from simtrust.api import configured
from simtrust.training import fleet, side_by_side
from simtrust.training.fleet import Fleet
from simtrust.training.loop import beginning

learning, acting = jax.devices()
jax.default_backend = lambda: "gpu"
fleet.processor = lambda: acting
seen = {"lanes": None, "learning": set(), "acting": set()}
begin_updates, original = Fleet.begin_updates, Fleet.on_processor

def devices(tree):
    return {str(d) for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array) for d in leaf.devices()}

def watched(self, shares, updates):
    seen["lanes"] = self.lanes
    wait = begin_updates(self, shares, updates)
    def until():
        done = wait()
        seen["learning"] |= devices([each.agents for each in done])
        return done
    return until

def on_processor(self, tree):
    moved = original(self, tree)
    seen["acting"] |= devices(moved)
    return moved

Fleet.begin_updates, Fleet.on_processor = watched, on_processor
options = json.loads(sys.argv[1])
runs = {}
for index, shift in enumerate(("gravity=2", "friction=0.3", "joint-noise=1")):
    given = {**options, "shifts": (shift,), "out": Path(str(index))}
    config, command = configured("h2o", **given)
    runs[str(index)] = partial(beginning, config, command=command)
ends = side_by_side.train_side_by_side(runs, quiet=True)
found = {name: end.summary["runs"] if hasattr(end, "summary") else str(end) for name, end in ends.items()}
print(json.dumps({**{k: sorted(v) if isinstance(v, set) else v for k, v in seen.items()}, "ends": found}))
"""


def test_one_device_learns_and_the_other_acts(tiny, record_built_in, tmp_path):
    log = record_built_in(tmp_path / "log.hdf5", "HalfCheetah-v5", 0)
    options = {**tiny, "real": str(log), "sim": "HalfCheetah-v5", "seeds": 2, "evaluate_every": 50}
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2",
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(options)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["lanes"] == 2
    assert found["learning"] == ["cpu:0"] and found["acting"] == ["cpu:1"]
    for name in "012":
        assert [run["seed"] for run in found["ends"][name]] == [0, 1], found["ends"][name]
        assert len((tmp_path / name / "metrics.jsonl").read_text().splitlines()) == 4
