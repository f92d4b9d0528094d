"""What the workers say while they run, brought to the driver over an authenticated socket."""

import json
import secrets
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from multiprocessing.connection import Listener as SocketListener
from threading import Event as Flag
from threading import Thread
from types import TracebackType
from typing import Self

from insitu.training.engines.base import Event, Listener


class ProgressServer:
    """Receives events on the driver, in a thread, and hands each to a listener.

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
        self._ended = Flag()
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

    def reporter(self) -> "Reporter":
        """What a worker reports through; it can be pickled."""
        return Reporter((self._host, self._socket.address[1]), self._key)

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
                    self._listener(json.loads(connection.recv_bytes()))
            except (AuthenticationError, EOFError, ConnectionResetError):
                return


class Reporter:
    """A worker's side; it connects with the first event."""

    def __init__(self, address: tuple[str, int], key: bytes) -> None:
        self._address = address
        self._key = key
        self._connection: Connection | None = None

    def __call__(self, event: Event) -> None:
        if self._connection is None:
            self._connection = Client(self._address, authkey=self._key)
        self._connection.send_bytes(json.dumps(event).encode())
