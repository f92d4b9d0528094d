import io
import time
from collections.abc import Callable

import pytest

from insitu.recommend.progress import shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(stream: io.StringIO, *, until: Callable[[str], bool]) -> str:
    """What is shown of a fit whose iterations are done one by one, until it is enough."""
    done: list[dict[str, float]] = []
    with shown(lambda: list(done), iterations=3, stream=stream, line_seconds=0.01):
        for number, loss in enumerate((0.5, 0.25, 0.125), start=1):
            done.append({"iteration": number, "loss": loss, "seconds": 1.0})
            time.sleep(0.05)
        for _ in range(200):
            if until(stream.getvalue()):
                break
            time.sleep(0.05)
    return stream.getvalue()


def test_a_log_gets_whole_lines() -> None:
    said = watched(io.StringIO(), until=lambda said: "iteration 3" in said)
    assert "als: iteration 3 of 3, loss 0.1250\n" in said
    assert "\r" not in said


def test_a_terminal_gets_a_bar() -> None:
    said = watched(Terminal(), until=lambda said: "3/3" in said)
    assert "3/3" in said
    assert "loss 0.125" in said
    assert "als: iteration" not in said


def test_the_fits_own_error_is_what_is_raised() -> None:
    def broken() -> list[dict[str, float]]:
        raise OSError("the gateway is gone")

    shown_broken = shown(broken, iterations=3, stream=io.StringIO(), line_seconds=0.01)
    with pytest.raises(ValueError, match="no rating"), shown_broken:
        time.sleep(0.1)
        raise ValueError("no rating")
