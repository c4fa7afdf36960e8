"""Who may write to a run folder in an object store, where no lock dies with its process: an owner object with a lease.

Each process puts a claim under a name of its own, then lists the claims. In a store that shows what was put to every
later listing, two processes cannot both miss the claim of the other, so at most one goes on; where both see each other,
both withdraw and try again after a while of random length. The owner puts its claim anew every RENEW_S seconds. A claim
that was not renewed for LEASE_S seconds, by the clock of the store, is that of a dead process.
"""

import contextlib
import json
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mribatch.core.errors import FolderGoneError, FolderLockedError, MribatchError, StorageError
from mribatch.pipeline.storage.address import Address
from mribatch.pipeline.storage.store import (
    StoreError,
    check_bucket,
    delete_object,
    list_folder,
    put_object,
    read_object,
)

CLAIM_PREFIX, _CLAIM_SUFFIX = ".owner-", ".json"
LEASE_S, RENEW_S = 120.0, 20.0
_SAFE_SHARE = 0.75  # of the lease; an owner that could not renew for so long stops before others may begin
_TRIES = 5  # where two processes begin at the same moment
_PAUSE_S = 2.0


@dataclass(frozen=True)
class _Claim:
    name: str
    mtime_ns: int
    content: Mapping[str, Any]

    @property
    def is_owner(self) -> bool:
        """Whether its process has the folder; else it only asks for it."""
        return self.content.get("owner") is True


def is_claim(name: str) -> bool:
    """Whether an object of a run folder is the claim of a process."""
    return name.startswith(CLAIM_PREFIX)


class Lease:
    """The right to write to a folder of a store, while entered.

    Args:
        folder: The run folder.
        note: Receives a line where it must wait.
        lease_s: Seconds after which a claim that was not renewed is that of a dead process.
        renew_s: Seconds between renewals.

    Raises:
        FolderLockedError: On entering: another process writes there.
        MribatchError: On entering: the store cannot be written to.
    """

    def __init__(
        self,
        folder: Address,
        note: Callable[[str], None],
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self._folder = folder
        self._note = note
        self._lease_s, self._renew_s = lease_s, renew_s
        self._name = f"{CLAIM_PREFIX}{secrets.token_hex(8)}{_CLAIM_SUFFIX}"
        self._ended = threading.Event()
        self._is_owner = False
        self._renewed = 0.0  # time.monotonic before the last renewal that succeeded

    def __enter__(self) -> Self:
        try:
            check_bucket(self._folder)
            self._take()
        except StoreError as error:
            raise error.to_user(f"cannot write to {self._folder}") from error
        self._thread = threading.Thread(target=self._renew, name="mribatch-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()  # a renewal that is under way would bring the claim back
        self._withdraw()

    def check(self) -> None:
        """Make sure that no other process may have begun.

        Raises:
            StorageError: The claim could not be renewed for too long.
        """
        if time.monotonic() - self._renewed > self._lease_s * _SAFE_SHARE:
            raise StorageError(
                f"the store of {self._folder} took no writes for {self._lease_s * _SAFE_SHARE:.0f} s",
                "check the store and type the same command again; it continues where it stopped",
            )

    def _take(self) -> None:
        for _ in range(_TRIES):
            self._put()
            try:
                others = self._others()
                if not others:
                    self._is_owner = True
                    self._put()
                    return
                if owners := [claim for claim in others if claim.is_owner]:
                    self._outwait(owners[0])
            except BaseException:
                self._withdraw()
                raise
            self._withdraw()
            time.sleep(random.uniform(0, _PAUSE_S))
        raise self._locked({})

    def _others(self) -> list[_Claim]:
        """The claims of other processes that may be alive; those of dead ones are deleted."""
        found = {name: facts.mtime_ns or 0 for name, facts in list_folder(self._folder) if is_claim(name)}
        now = found.pop(self._name, None)
        if now is None:
            raise FolderGoneError(
                f"{self._folder} was emptied while it was claimed", "leave it alone and type the same command again"
            )
        alive = []
        for name, renewed in found.items():
            content = self._read(name)
            if now - renewed > self._lease_s * 1e9 or _is_dead(content):
                delete_object(self._folder / name)
            else:
                alive.append(_Claim(name, renewed, content))
        return alive

    def _outwait(self, owner: _Claim) -> None:
        """Wait until the claim of the owner is gone or has run out.

        Raises:
            FolderLockedError: It was renewed: its process is alive.
        """
        self._note(f"{_describe(owner.content)} has {self._folder}; waiting whether it is still there")
        end = time.monotonic() + self._lease_s + self._renew_s
        while time.monotonic() < end:
            time.sleep(min(1.0, self._renew_s / 4))
            self._put()
            found = {claim.name: claim.mtime_ns for claim in self._others()}
            if owner.name not in found:
                return
            if found[owner.name] != owner.mtime_ns:
                raise self._locked(owner.content)

    def _locked(self, owner: Mapping[str, Any]) -> FolderLockedError:
        return FolderLockedError(f"{_describe(owner)} is writing to {self._folder}", "wait for it to end, or stop it")

    def _read(self, name: str) -> Mapping[str, Any]:
        with contextlib.suppress(StoreError, ValueError):
            content = json.loads(read_object(self._folder / name, limit=1 << 16).data)
            if isinstance(content, dict):
                return content
        return {}

    def _put(self) -> None:
        begin = time.monotonic()
        content = {"owner": self._is_owner} | _myself()
        put_object(self._folder / self._name, json.dumps(content).encode())
        self._renewed = begin

    def _withdraw(self) -> None:
        with contextlib.suppress(StoreError):
            delete_object(self._folder / self._name)

    def _renew(self) -> None:
        while not self._ended.wait(self._renew_s):
            with contextlib.suppress(StoreError, MribatchError):  # `check` tells when it took too long
                self._put()


def _myself() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "begun": _begun(os.getpid())}


def _machine() -> str | None:
    """The same for processes that see each other's numbers: of one boot and one container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _begun(pid: int) -> str | None:
    """When a process of this machine began, in ticks; None where there is none, or the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _is_dead(claim: Mapping[str, Any]) -> bool:
    """Whether it is of a process of this very machine that has ended; that of another machine may be alive."""
    machine, pid = claim.get("machine"), claim.get("pid")
    if machine is None or machine != _machine() or not isinstance(pid, int) or claim.get("begun") is None:
        return False
    return _begun(pid) != claim.get("begun")


def _describe(claim: Mapping[str, Any]) -> str:
    host, pid = claim.get("host"), claim.get("pid")
    return "another mribatch run" if host is None else f"another mribatch run (process {pid} on {host})"
