"""A sweep whose runs are jobs of Slurm: python examples/slurm_sweep.py SWEEP_FILE FOLDER_THAT_ALL_NODES_SEE

Needs submitit (pip install submitit). Started again, it goes on where it was.
"""

import sys
from collections.abc import Iterator, Sequence

import submitit  # pyright: ignore[reportMissingImports]

from simtrust.errors import describe_error
from simtrust.sweeps.checking import check_problems
from simtrust.sweeps.local_engine import Engine
from simtrust.sweeps.sweep import raise_failures, sweep
from simtrust.sweeps.work import Order, Outcome, carry_out


def as_jobs(orders: Sequence[Order]) -> Iterator[Outcome]:
    """Each run a job of an array, of which at most 32 run at a time; one that Slurm ends ends no other."""
    executor = submitit.AutoExecutor("slurm_logs")
    executor.update_parameters(timeout_min=24 * 60, cpus_per_task=4, slurm_array_parallelism=32)
    jobs = executor.map_array(carry_out, orders)
    names = {job.job_id: order.run.name for job, order in zip(jobs, orders, strict=True)}
    for job in submitit.helpers.as_completed(jobs):
        try:
            yield job.result()
        except Exception as error:
            yield Outcome(names[job.job_id], None, describe_error(error).splitlines()[0], str(error))


def main() -> None:
    raise_failures(sweep(sys.argv[1], sys.argv[2], Engine(check_problems, as_jobs), tell=print))


if __name__ == "__main__":
    main()
