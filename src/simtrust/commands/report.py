"""``simtrust report``: a training run as one page."""

import tyro
from rich.console import Console
from rich.text import Text


def report(
    directory: tyro.conf.Positional[str],
    out: str | None = None,
    compare: tuple[str, ...] = (),
    video: bool = True,
) -> None:
    """Write one HTML page about a training run: how it went, what to worry about, what to try.

    The page is interactive, opens from disk and asks the network for nothing. It says whether the
    simulator helped, if a run of cql (the log alone) or sac (the simulator alone) is given or lies beside.
    A run that is not finished has a page too.

    Args:
        directory: The run directory.
        out: The page. Default: report.html in the run directory.
        compare: Other run directories to compare with.
        video: Film the policy, where the environment is built in.
    """
    from simtrust.reports.run_report import report_run

    path = report_run(directory, out, compare, video=video)
    Console().print(Text(f"Report: {path}"), soft_wrap=True)
