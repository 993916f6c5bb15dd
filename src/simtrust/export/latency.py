"""How long one call of an exported policy takes on this machine."""

import io
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from simtrust.export.onnx_session import open_session
from simtrust.export.policy_runner import PolicyRunner

CALLS, WARM_UP = 5_000, 500


def measure_latency(model: bytes, archive: bytes, observation: np.ndarray) -> dict[str, Any]:
    """Of one row [O] at a time, on one thread: p50 and p99 in microseconds, and on which machine.

    ``onnxruntime`` is None where it is not installed.
    """
    runner, session = PolicyRunner(io.BytesIO(archive)), open_session(model)
    batch = observation[None]
    with threadpool_limits(limits=1):
        numpy_times = _times(lambda: runner(observation))
    return {
        "unit": "microseconds",
        "batch": 1,
        "threads": 1,
        "calls": CALLS,
        "processor": f"{processor()}, {os.cpu_count()} threads",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "onnxruntime": None if session is None else _times(lambda: session(batch)),
        "numpy": numpy_times,
    }


def _times(call: Callable[[], object]) -> dict[str, float]:
    for _ in range(WARM_UP):
        call()
    took = np.empty(CALLS)
    for index in range(CALLS):
        began = time.perf_counter_ns()
        call()
        took[index] = time.perf_counter_ns() - began
    half, most = np.percentile(took, [50, 99]) / 1e3
    return {"p50": round(float(half), 1), "p99": round(float(most), 1)}


def processor() -> str:
    """Its model's name, which Linux tells only there."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine() or "unknown"
