"""What a run that stops early says: which step is saved, and how to go on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from simtrust.errors import RunError, SimtrustError, SimulatorError, describe_error
from simtrust.training.callbacks import CallbackError
from simtrust.training.diagnosis import NonFiniteError
from simtrust.training.out_of_memory import telling_out_of_memory


@contextmanager
def telling_how_to_go_on(
    *, saved_step: Callable[[], int], save: Callable[[], int], command: str
) -> Iterator[None]:
    """Add a note with the saved step and ``command`` to whatever stops the run.

    Where the state is sound and only the simulator or the user's code failed, ``save`` is called first,
    which returns the step it saved. What the disk or the memory refused becomes a `RunError`, and nothing is
    saved: it would only fail again.
    """
    try:
        with _as_our_own():
            yield
    except NonFiniteError:
        # It says itself how to go on.
        raise
    except (SimulatorError, CallbackError) as error:
        what = "the simulator" if isinstance(error, SimulatorError) else "that"
        error.add_note(_saved_now(what, saved_step, save, command))
        raise
    except (KeyboardInterrupt, SimtrustError) as error:
        error.add_note(f"Step {saved_step()} is saved; go on with: {command}")
        raise


@contextmanager
def _as_our_own() -> Iterator[None]:
    try:
        with telling_out_of_memory():
            yield
    except SimtrustError:
        raise
    except OSError as error:
        raise RunError(f"the run cannot go on: {describe_error(error)}") from error


def _saved_now(what: str, saved_step: Callable[[], int], save: Callable[[], int], command: str) -> str:
    try:
        with _as_our_own():
            step = save()
    except SimtrustError as failed:
        return (
            f"The training state could not be saved: {failed}. "
            f"Step {saved_step()} is saved; when both are mended, go on with: {command}"
        )
    return f"The training state at step {step} is saved; when {what} is mended, go on with: {command}"
