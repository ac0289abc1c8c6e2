"""The model hub: turns a branch or tag into the commit that a bake pins."""

import re

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from baker.errors import UsageError

COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT = 30.0  # seconds


def resolve(endpoint: str, model_id: str, revision: str) -> str:
    """The commit of `revision`; one that is a commit already stays what it is, unasked.

    Raises UsageError when the hub has no such model or revision, or cannot be asked.
    """
    if COMMIT.fullmatch(revision):
        return revision
    try:
        commit = HfApi(endpoint=endpoint).model_info(model_id, revision=revision, timeout=TIMEOUT).sha
    except RevisionNotFoundError:
        raise UsageError(f"the model {model_id} has no revision {revision!r} at {endpoint}") from None
    except RepositoryNotFoundError:
        raise UsageError(f"no model {model_id} at {endpoint}, or it is not public") from None
    except HfHubHTTPError as error:
        raise UsageError(f"the model hub {endpoint} answered: {str(error).splitlines()[0]}") from None
    except Exception as error:  # the HTTP client underneath has changed with the hub's versions, and its errors too
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"the model hub {endpoint} cannot be reached: {reason}") from None
    if commit is None or not COMMIT.fullmatch(commit):
        raise UsageError(f"the model hub {endpoint} named no commit for {model_id} at {revision!r}")
    return commit
