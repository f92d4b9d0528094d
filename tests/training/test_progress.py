"""Progress over real sockets, from processes of their own."""

import multiprocessing
import os
import socket
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from queue import Queue

import pytest

from insitu.training.engines.base import Event
from insitu.training.progress import HEARTBEAT_SECONDS, ProgressServer, Reporter

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30


def test_events_of_several_processes_arrive_each_in_order() -> None:
    heard: Queue[Event] = Queue()
    sent = [[{"event": "epoch", "rank": rank, "number": number} for number in range(20)] for rank in range(3)]
    with ProgressServer(HOST, heard.put) as server:
        with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
            for worker in [pool.submit(list, map(server.reporter(), events)) for events in sent]:
                worker.result()
        events = [heard.get(timeout=TIMEOUT_SECONDS) for _ in range(60)]
    for rank in range(3):
        assert [event for event in events if event["rank"] == rank] == sent[rank]


def test_wrong_key_is_refused_and_the_server_lives_on() -> None:
    heard: Queue[Event] = Queue()
    with ProgressServer(HOST, heard.put) as server:
        reporter = server.reporter()
        with pytest.raises(AuthenticationError):
            Reporter(reporter._address, b"wrong key")({"event": "epoch", "number": 0})
        reporter({"event": "epoch", "number": 1})
        assert heard.get(timeout=TIMEOUT_SECONDS)["number"] == 1
    assert heard.empty()


def test_client_that_says_nothing_or_hangs_up_holds_up_nobody() -> None:
    heard: Queue[Event] = Queue()
    with ProgressServer(HOST, heard.put) as server:
        reporter = server.reporter()
        socket.create_connection(reporter._address).close()
        with socket.create_connection(reporter._address):
            reporter({"event": "epoch", "number": 1})
            assert heard.get(timeout=TIMEOUT_SECONDS)["number"] == 1


def test_end_closes_the_port_and_ends_its_thread() -> None:
    before = set(threading.enumerate())
    with ProgressServer(HOST, lambda event: None) as server:
        address = server.reporter()._address
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        Client(address)


def test_error_of_the_training_passes_through() -> None:
    with pytest.raises(RuntimeError, match="diverged"), ProgressServer(HOST, lambda event: None):
        raise RuntimeError("diverged")


def test_worker_hears_the_request_to_stop() -> None:
    with ProgressServer(HOST, lambda event: None) as server:
        reporter = server.reporter()
        reporter.live(3, "host")
        assert not reporter.stop_requested()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not reporter.stop_requested():
            server.ask_to_stop()
            assert time.monotonic() < deadline
        assert reporter.stop_requested()


def test_worker_that_is_given_up_ends_at_its_next_pulse_and_is_heard_until_then() -> None:
    heard: Queue[Event] = Queue()
    with ProgressServer(HOST, heard.put) as server:
        worker = multiprocessing.get_context("fork").Process(target=live_until_given_up, args=(server.reporter(),))
        worker.start()
        assert heard.get(timeout=TIMEOUT_SECONDS)["event"] == "hello"
        server.give_up()
        assert [heard.get(timeout=TIMEOUT_SECONDS)["event"] for _ in range(2)] == ["last words", "gone"]
        worker.join()


def live_until_given_up(reporter: Reporter) -> None:
    reporter.live(3, "host")
    try:
        while not reporter.stop_requested():
            time.sleep(0.01)
    except EOFError:
        reporter({"event": "last words", "rank": 3})
    os._exit(9)


def test_live_worker_says_how_far_it_is_and_its_end_is_told() -> None:
    heard: Queue[Event] = Queue()
    with ProgressServer(HOST, heard.put) as server:
        worker = multiprocessing.get_context("fork").Process(target=live_and_die, args=(server.reporter(),))
        worker.start()
        events = [heard.get(timeout=TIMEOUT_SECONDS) for _ in range(3)]
        worker.join()
    assert events == [
        {"event": "hello", "rank": 3, "host": "host"},
        {"event": "alive", "rank": 3, "progress": 1},
        {"event": "gone", "rank": 3},
    ]


def live_and_die(reporter: Reporter) -> None:
    reporter.live(3, "host")
    reporter.advance()
    time.sleep(HEARTBEAT_SECONDS * 1.5)
    os._exit(9)
