"""How a bake that fails is left: with nothing, or with the one machine that somebody wants to look at."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from baker import interrupts
from baker.aws.instances import Machine
from baker.context import Context
from baker.errors import AwsError, BakeError, KeptError
from baker.recovery import cleanup, lease


@contextmanager
def swept_on_failure(context: Context, name: str) -> Iterator[None]:
    """Whatever goes wrong inside: end the bake's machines and remove its image, undisturbed by signals.

    Unless another launcher has taken the bake over: what exists of it is that one's now. And but for a machine that was
    launched to be kept, when the bake failed and nobody interrupted it: that raises KeptError with the reason.
    """
    try:
        yield
    except lease.LostError:
        raise
    except BaseException as error:
        with interrupts.held_off(context.display.note):
            kept = _clean_up(context, name, spare=isinstance(error, BakeError))
        if kept is None:
            raise
        raise KeptError(
            f"{error}; its machine {kept.id} is kept {kept.until}, and never becomes an image: "
            f"`bake.py reap --bake {name} --yes` ends it before",
            kept.id,
        ) from None


def _clean_up(context: Context, name: str, *, spare: bool) -> Machine | None:
    """Remove what can be; returns the machine that is kept, if any."""
    try:
        with suppress(AwsError):
            context.hold()
        kept = cleanup.spare(context, name) if spare else None
        if kept is None:
            cleanup.sweep(context, name)
        return kept
    except lease.LostError:
        raise
    except BakeError as error:
        minutes = context.config.bake.deadline_minutes
        context.display.note(
            f"cleaning up failed: {error}; the machine ends itself {minutes} minutes after launch at most, "
            f"and `bake.py reap --bake {name} --yes` removes the rest"
        )
        return None
