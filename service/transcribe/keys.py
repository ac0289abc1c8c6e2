"""New API keys. Standard library only, so that a key can be made before anything is installed."""

import hashlib
import re
import secrets

LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+(?P<digest>[0-9a-f]{64})")  # of a keys file


def new_key(name: str) -> tuple[str, str]:
    """A new key, and its line for the keys file. Raises ValueError for a name that cannot stand in the file.

    A key is 256 random bits: nobody can guess it from its plain digest, so the digest needs no salt.
    """
    key = f"sk-{secrets.token_urlsafe(32)}"
    line = f"{name} {hashlib.sha256(key.encode()).hexdigest()}"
    if not LINE.fullmatch(line):
        raise ValueError("a key's name has 1 to 64 letters, digits, dots, dashes or underscores")
    return key, line


def printed(name: str) -> str:
    """A new key and its line, as the command line shows them."""
    key, line = new_key(name)
    return f"key:  {key}\nline: {line}"
