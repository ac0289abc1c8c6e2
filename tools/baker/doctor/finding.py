"""A finding: one row of an examination."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from baker.aws import mends
from baker.errors import AwsError, UsageError

REFUSED = "keys"  # what fails where AWS takes none of these credentials, or refuses the account
UNSEEN = "not looked at, since"
OK, NOTE, FAILS, UNKNOWN = "ok", "note", "fails", "not known"
AGAIN = "look again later"


@dataclass(frozen=True)
class Finding:
    """`mend` says in one line what to do; it is empty where nothing is to be done."""

    name: str
    verdict: str
    detail: str
    mend: str = ""


Check = Callable[[], Iterable[Finding]]


def found(name: str, bad: str, good: str, mend: str, *, verdict: str = FAILS) -> Finding:
    """A finding that is bad if there is something bad to say."""
    return Finding(name, verdict, bad, mend) if bad else Finding(name, OK, good)


class Examination:
    """Checks, one after another. What depends on what failed is not looked at, so that a fault is one row."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}  # what fails, and why

    def run(
        self, name: str, check: Check, needs: str = "", *, mend: str = "", required: bool = False
    ) -> Iterator[Finding]:
        """What a check finds. What AWS does not let be seen is not known, and fails only if a bake must see it.

        `mend` is what to do about an error of the configuration.
        """
        if needs in self._failed:
            yield Finding(name, UNKNOWN, f"{UNSEEN} this fails: {needs}")
            return
        for finding in self._tried(name, check, mend, required):
            if finding.verdict == FAILS or finding.detail.startswith(UNSEEN):
                self._failed[name] = finding.detail
            yield finding

    def _tried(self, name: str, check: Check, mend: str, required: bool) -> Iterator[Finding]:
        try:
            yield from check()
        except UsageError as error:
            yield self._failing(name, str(error), mend)
        except AwsError as error:
            yield self._refused(name, error, mend, required)

    def _refused(self, name: str, error: AwsError, mend: str, required: bool) -> Finding:
        """A row that AWS does not let be seen."""
        if error.logged_out or mends.of_account(error.code, error.told):
            if REFUSED in self._failed:
                what = "credentials are" if error.logged_out else "account is"
                return Finding(name, UNKNOWN, f"{UNSEEN} the {what} refused")
            self._failed[REFUSED] = error.told
            return Finding(name, FAILS, error.told, error.mend)
        if error.denied and required:
            denial = error.told.replace("AWS refused", "AWS denies", 1)
            return self._failing(name, f"{denial}; a bake needs it", error.mend)
        if required and error.code and not error.transient:
            return self._failing(name, f"{error.told}; a bake would fail as well", error.mend or mend)
        return Finding(name, UNKNOWN, error.told, error.mend or AGAIN)

    def _failing(self, name: str, detail: str, mend: str) -> Finding:
        """A row that fails, unless another one fails for the same reason."""
        before = next((row for row, why in self._failed.items() if why == detail or row == REFUSED), "")
        if before:
            return Finding(name, UNKNOWN, f"{UNSEEN} this fails: {before}")
        return Finding(name, FAILS, detail, mend)


def require(findings: Sequence[Finding]) -> None:
    """Raise UsageError that names everything that fails, each with its mend."""
    failing = [finding for finding in findings if finding.verdict == FAILS]
    if failing:
        raise UsageError(". ".join(f"{f.name}: {f.detail}" + (f"; {f.mend}" if f.mend else "") for f in failing))
