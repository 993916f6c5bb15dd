"""``simtrust doctor``: what a bug report should say of the machine."""

from rich.console import Console
from rich.text import Text


def doctor(speed: bool = True) -> None:
    """Tell what is installed, what the machine has and how fast it is, to paste into a bug report.

    Tells no user name, and ~ for the home directory.

    Args:
        speed: Time matrix products, updates and a simulator as well: some seconds, and at the first time as
            long as compiling takes.
    """
    from simtrust.doctor import diagnose, measure_speed, to_text
    from simtrust.stages import show_stages

    with show_stages() as stage:
        stage("looking around")
        facts = diagnose()
        if speed:
            stage("measuring speed")
            facts |= measure_speed()
    Console().print(Text(to_text(facts)), soft_wrap=True)
