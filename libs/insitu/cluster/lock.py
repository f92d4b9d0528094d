"""One job at a time writes to an output; a job that died leaves a lock that ends by itself."""

import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from insitu.cluster.filesystem import FILE_SYSTEM_ERRORS, create, open_filesystem, overwrite, rename, say
from insitu.errors import UserError

BEAT_SECONDS = 30
STALE_SECONDS = 600
_WRITING_SECONDS = 2
_LOOK_SECONDS = 5
_LAST_BEAT_SECONDS = 5


class Lock:
    """A lock file that this job holds."""

    def __init__(self, uri: str, owner: dict[str, Any], *, setting: str, output: str) -> None:
        self._uri = uri
        self._owner = owner
        self._setting = setting
        self._output = output

    @property
    def id(self) -> str:
        """Another one whenever the lock is taken."""
        return self._owner["id"]

    def check(self) -> None:
        """Raise `UserError` where another job has taken it over, because this one stood still for too long."""
        file_system, path = open_filesystem(self._uri)
        owner = _parsed(file_system.cat_file(path))
        if owner.get("id") != self.id:
            who = f" ({_who(owner)})" if owner else ""
            problem = f"{self._output} was taken over by another job{who}: this one stood still for too long"
            raise UserError(self._setting, problem, "leave it to that one")

    def beat(self, ended: Event) -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(UserError, *FILE_SYSTEM_ERRORS):  # away for a while, or taken over: the job itself finds out
                self.check()
                if not ended.is_set():
                    overwrite(self._uri, _text(self._owner))

    def release(self) -> None:
        """Remove it where it is this job's still; where the file system is away it stays, and is said to."""
        file_system, path = open_filesystem(self._uri)
        try:
            if _parsed(file_system.cat_file(path)).get("id") == self.id:
                file_system.rm_file(path)
        except FileNotFoundError:
            return
        except FILE_SYSTEM_ERRORS as error:
            self.leave(str(error))

    def leave(self, reason: str) -> None:
        hosts = f"on this host once this job has ended, on others after {STALE_SECONDS} s"
        say(f"lock: {self._uri} stays there ({reason}); it counts for nothing {hosts}")


@contextmanager
def locked(uri: str, *, setting: str, output: str) -> Iterator[Lock]:
    """Hold a lock file while the block runs.

    It names its owner and is written anew every half minute. One whose owner is a process of this user and host that
    has ended, or that nobody has written for ten minutes, is taken over, and that is said. Whether an owner on another
    host lives is waited for.

    Args:
        uri: of the lock file, on any file system.
        setting, output: what the user called the directory that is locked, and which it is, for the error.

    Raises:
        UserError: another job holds it; the message names that one.
    """
    owner = _owner()
    while not create(uri, _text(owner)):
        _take_away_if_stale(uri, setting, output)
    lock, ended = Lock(uri, owner, setting=setting, output=output), Event()
    beating = Thread(target=lock.beat, args=(ended,), name="insitu-lock", daemon=True)
    beating.start()
    try:
        yield lock
    finally:
        ended.set()
        beating.join(_LAST_BEAT_SECONDS)
        if beating.is_alive():  # to wait for a file system as it does would keep the job from its end
            lock.leave("its file system does not answer")
        else:
            lock.release()


def _owner() -> dict[str, Any]:
    return {
        "id": uuid4().hex,
        "user": getpass.getuser(),
        "host": socket.gethostname(),
        "processes": _processes(),
        "pid": os.getpid(),
        "started": _process_start(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _text(owner: dict[str, Any]) -> bytes:
    return json.dumps(owner | {"beat": time.time()}).encode()


def _take_away_if_stale(uri: str, setting: str, output: str) -> None:
    file_system, path = open_filesystem(uri)
    try:
        owner = _parsed(file_system.cat_file(path))
        if not owner:  # perhaps it is being written just now
            time.sleep(_WRITING_SECONDS)
            owner = _parsed(file_system.cat_file(path))
        if owner and _lives(owner, uri, output):
            raise UserError(
                setting,
                f"{output} is being written by another job ({_who(owner)})",
                f"wait for it, or end it and remove {uri}",
            )
    except FileNotFoundError:
        return
    gone = f"{path}.{uuid4().hex[:8]}"
    with suppress(FileNotFoundError):  # somebody else was faster
        rename(file_system, path, gone)
        moved = _parsed(file_system.cat_file(gone))
        if moved != owner:  # it was written meanwhile, by an owner that lives
            if not file_system.exists(path):
                rename(file_system, gone, path)
            return
        file_system.rm_file(gone)
        whose = f"process {owner['pid']} on {owner['host']}" if owner else "a job that was killed"
        say(f"lock: {whose} left {output} locked and is gone; going on")


def _parsed(text: bytes) -> dict[str, Any]:
    """The owner; {} where the job was killed as it wrote."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _lives(owner: dict[str, Any], uri: str, output: str) -> bool:
    """Whether the owner's process is there, or, where it cannot be seen from here, still writes its lock."""
    if (owner["processes"], owner["user"]) == (_processes(), getpass.getuser()):
        return _age(owner) <= STALE_SECONDS and _process_start(owner["pid"]) == owner["started"]
    # The other host's clock may be wrong either way.
    seconds = min(max(STALE_SECONDS - _age(owner), 2 * BEAT_SECONDS), STALE_SECONDS)
    say(f"lock: {output} is locked ({_who(owner)}); for {seconds:.0f} s it is seen whether that job lives")
    file_system, path = open_filesystem(uri)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(_LOOK_SECONDS)
        if _parsed(file_system.cat_file(path)) != owner:
            return True
    return False


def _age(owner: dict[str, Any]) -> float:
    """Seconds since the lock was written, by this host's clock."""
    return time.time() - owner["beat"]


def _who(owner: dict[str, Any]) -> str:
    return f"{owner['user']} on {owner['host']}, process {owner['pid']}, since {owner['since']}"


def _processes() -> str:
    """What a process's number is unique in: the machine since it started, and the container."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _process_start(pid: int) -> str | None:
    """When a process began, in the kernel's ticks, since numbers are used again; None where it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]  # a dead process may still wait for its parent
