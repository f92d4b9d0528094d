"""How far a fit is, on stderr."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TextIO

from tqdm import tqdm

_POLL_SECONDS = 0.5
_LINE_SECONDS = 30
_FORMAT = "{desc} |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"

History = Callable[[], list[dict[str, float]]]


@contextmanager
def shown(history: History, *, iterations: int, stream: TextIO, line_seconds: float = _LINE_SECONDS) -> Iterator[None]:
    """Show the iterations of a fit while it runs: a bar on a terminal, elsewhere a line every half minute.

    Args:
        history: gives the iterations that are done, from any thread, as `ALS.history` does.
        iterations: how many there will be.
        stream: such as `sys.stderr`.
        line_seconds: between lines where there is no terminal.
    """
    ended = Event()

    def watch() -> None:
        next_line_seconds = time.monotonic() + line_seconds
        bar = tqdm(desc="als", total=iterations, file=stream, disable=None, leave=False, bar_format=_FORMAT, miniters=0)
        with bar:
            while not ended.wait(min(_POLL_SECONDS, line_seconds)):
                done = history()
                if not done:
                    continue
                loss = f"loss {done[-1]['loss']:.4f}"
                bar.set_postfix_str(loss, refresh=False)
                bar.update(len(done) - bar.n)
                if bar.disable and time.monotonic() >= next_line_seconds:
                    next_line_seconds += line_seconds
                    print(f"als: iteration {len(done)} of {iterations}, {loss}", file=stream, flush=True)

    with ThreadPoolExecutor(1, thread_name_prefix="insitu-als-progress") as thread:
        watching = thread.submit(watch)
        try:
            yield
        finally:
            ended.set()
        watching.result()
