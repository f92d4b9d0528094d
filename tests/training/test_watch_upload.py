"""Uploads that hang."""

import threading

import pytest

from insitu.training import watch_upload
from insitu.training.watch_upload import PatientUpload


def test_upload_that_hangs_holds_up_neither_the_events_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_upload, "_CLOSE_SECONDS", 0.1)
    released = threading.Event()
    begun: list[int] = []
    told: list[str] = []

    def hang() -> None:
        begun.append(1)
        released.wait()

    upload = PatientUpload(hang, destination="hdfs://away/run", tell=told.append)
    for _ in range(5):
        upload.request()
    upload.close()
    assert told == ["hdfs://away/run misses the end of the run: it could not be written"]
    assert len(begun) == 1
    released.set()
