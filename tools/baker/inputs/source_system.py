"""Which system a source image holds, by its name, and whether the locks can serve its Python."""

import re

OLDEST, NEWEST = (3, 11), (3, 14)  # of CPython, that the locks have wheels for
# What a name says, and the Python that the system brings. The first that matches counts.
SYSTEMS = (
    (r"windows", "Windows", None),
    (r"(jammy|ubuntu\D{0,12}22\.04)", "Ubuntu 22.04", (3, 10)),
    (r"(focal|ubuntu\D{0,12}20\.04)", "Ubuntu 20.04", (3, 8)),
    (r"(bionic|ubuntu\D{0,12}18\.04)", "Ubuntu 18.04", (3, 6)),
    (r"(noble|ubuntu\D{0,12}24\.04)", "Ubuntu 24.04", (3, 12)),
    (r"(resolute|ubuntu\D{0,12}26\.04)", "Ubuntu 26.04", (3, 14)),
    (r"(al2023|amazon linux 2023)", "Amazon Linux 2023", (3, 9)),
    (r"(amzn2|amazon linux 2\b|al2-)", "Amazon Linux 2", (3, 7)),
    (r"(rhel|red hat|rocky|almalinux|centos|fedora|oracle|suse|sles|bottlerocket)", "a system without apt", None),
    (r"debian-(11|bullseye)", "Debian 11", (3, 9)),
    (r"debian-(12|bookworm)", "Debian 12", (3, 11)),
    (r"debian-(13|trixie)", "Debian 13", (3, 13)),
)
SUPPORTED = "Ubuntu 24.04, Debian 12 and 13"


def obstacle(name: str, architecture: str) -> str:
    """Why a bake cannot start from an image of this name; empty if it can, or if the name does not tell."""
    if architecture != "x86_64":
        return f"it is for {architecture}, and the locks are for x86_64"
    for pattern, system, python in SYSTEMS:
        if not re.search(pattern, name, re.IGNORECASE):
            continue
        if python is None:
            return f"it is {system}, and the machine needs apt and systemd: use {SUPPORTED}"
        if not OLDEST <= python <= NEWEST:
            return f"it is {system} with Python {python[0]}.{python[1]}; 3.11 to 3.14 are served: use {SUPPORTED}"
        return ""
    return ""


def known(name: str) -> str:
    """The system that a name tells; empty if it does not."""
    return next((system for pattern, system, _ in SYSTEMS if re.search(pattern, name, re.IGNORECASE)), "")
