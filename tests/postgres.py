"""A PostgreSQL of the tests' own: a cluster in a temporary folder, reached by a socket in it, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

REQUIRED = os.environ.get("LABKIT_POSTGRES_REQUIRED") == "1"  # .ci/run sets it: there a missing PostgreSQL is a failure


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`, the newest of several; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextlib.contextmanager
def cluster(bin: Path) -> Iterator[str]:
    """Start a cluster and give its SQLAlchemy address. PostgreSQL refuses to be root: then it runs as another user."""
    user = {"user": _other(), "group": _group(_other()), "extra_groups": []} if _root() else {}
    folder = Path(
        tempfile.mkdtemp(prefix="pg", dir="/tmp")
    )  # a socket's path may have 107 letters, pytest's are longer
    data, log = folder / "data", folder / "log"

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [bin / program, *arguments], cwd=folder, capture_output=True, text=True, check=False, **user
        )
        if done.returncode:
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}{said}")

    try:
        if user:
            shutil.chown(folder, user["user"], user["group"])
        run("initdb", "-D", str(data), "-U", "labkit", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        # The log goes to a file: a server that inherits our pipe would keep it open for ever.
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "-D", str(data), "-l", str(log), "-w", "-t", "60", "-o", options, "start")
        yield f"postgresql+psycopg://labkit@/postgres?host={folder}"
    finally:
        if (data / "postmaster.pid").exists():
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _other() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid
