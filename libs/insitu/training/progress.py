"""What the workers and the driver say to each other while a gang runs, over authenticated sockets."""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from multiprocessing.connection import Listener as SocketListener
from threading import Event as Flag
from threading import Lock, Thread
from types import TracebackType
from typing import Self

from insitu.training.engines.base import Event, Listener

HEARTBEAT_SECONDS = 3
_STOP = b"stop"


class ProgressServer:
    """Receives events on the driver, in threads, and hands one at a time to a listener.

    When a worker's connection ends, the listener gets a `gone` event with the worker's rank.

    Args:
        host: an address of the driver that the workers reach, such as `spark.driver.host`.
        listener: called with every event.
        bind: the driver's own address where `host` is one of a gateway, such as `spark.driver.bindAddress`.
    """

    def __init__(self, host: str, listener: Listener, *, bind: str | None = None) -> None:
        self._key = secrets.token_bytes(16)
        self._host = host
        self._socket = SocketListener((bind or host, 0))
        self._listener = listener
        self._one_at_a_time = Lock()
        self._workers: dict[int, Connection] = {}
        self._ended = Flag()
        self._stopping = False
        self._thread = Thread(target=self._serve, name="insitu-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        Client(self._socket.address).close()  # closing a socket does not wake the thread that accepts from it
        self._thread.join()
        self._socket.close()
        with self._one_at_a_time:
            for connection in self._workers.values():  # a worker that was given up but lives ends at its next word
                with socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)

    def reporter(self) -> "Reporter":
        """What a worker reports through; it can be pickled."""
        return Reporter((self._host, self._socket.address[1]), self._key)

    def ask_to_stop(self) -> None:
        """Ask every worker to write a checkpoint and end, also those that say hello later."""
        with self._one_at_a_time:
            self._stopping = True
            for connection in self._workers.values():
                with suppress(OSError):  # it is gone: its own thread tells
                    connection.send_bytes(_STOP)

    def give_up(self) -> None:
        """End every worker at its next pulse, where it finds its line closed; that it has ended is still heard."""
        with self._one_at_a_time:
            for connection in self._workers.values():
                with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_WR)

    def _serve(self) -> None:
        while True:
            connection = self._socket.accept()
            if self._ended.is_set():
                connection.close()
                return
            Thread(target=self._receive, args=(connection,), name="insitu-progress", daemon=True).start()

    def _receive(self, connection: Connection) -> None:
        """One client to its end; it proves that it has the key here, where a silent one holds up nobody else."""
        with connection:
            try:
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                while True:
                    self._tell(json.loads(connection.recv_bytes()), connection)
            except (AuthenticationError, EOFError, OSError):
                for rank in [rank for rank, theirs in list(self._workers.items()) if theirs is connection]:
                    self._tell({"event": "gone", "rank": rank}, connection)

    def _tell(self, event: Event, connection: Connection) -> None:
        with self._one_at_a_time:
            if event["event"] == "hello":
                self._workers[event["rank"]] = connection
                if self._stopping:
                    connection.send_bytes(_STOP)
            elif event["event"] == "gone":
                del self._workers[event["rank"]]
            if not self._ended.is_set():
                self._listener(event)


class Reporter:
    """A worker's side; it connects with the first event."""

    def __init__(self, address: tuple[str, int], key: bytes) -> None:
        self._address = address
        self._key = key
        self._connection: Connection | None = None
        self._stopping = False

    def __call__(self, event: Event) -> None:
        if self._connection is None:
            self._sending = Lock()
            self._connection = Client(self._address, authkey=self._key)
        with self._sending:
            self._connection.send_bytes(json.dumps(event).encode())

    def live(self, rank: int, host: str) -> None:
        """Say hello, and from now on every few seconds that this process lives and how far it is."""
        self._progress = 0
        self({"event": "hello", "rank": rank, "host": host})
        Thread(target=self._beat, args=(rank,), name="insitu-heartbeat", daemon=True).start()

    def advance(self) -> None:
        """Count a piece of work: the driver ends a gang in which no count moves for too long."""
        self._progress += 1

    def stop_requested(self) -> bool:
        """Whether the driver asked for a checkpoint and the end."""
        assert self._connection is not None
        if not self._stopping and self._connection.poll():
            self._stopping = self._connection.recv_bytes() == _STOP
        return self._stopping

    def _beat(self, rank: int) -> None:
        while True:
            time.sleep(HEARTBEAT_SECONDS)
            try:
                self({"event": "alive", "rank": rank, "progress": self._progress})
            except OSError:  # the driver has ended the gang; the worker's own next word raises
                return
