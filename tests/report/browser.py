"""A real headless Chromium, for pages as wide as a screen or as narrow as a phone."""

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

_NARROWEST_WINDOW = 500  # Chromium makes no narrower one: a frame inside it is the phone


def overflow(page: Path, *, width: int, scratch: Path) -> int:
    """By how many pixels a page is wider than its screen."""
    measure = "document.title = this.contentDocument.documentElement.scrollWidth"
    dom = _chromium("--dump-dom", _frame(page, width, measure, scratch))
    found = re.search(r"<title>(\d+)</title>", dom)
    assert found is not None, dom[:500]
    return int(found[1]) - width


def screenshot(page: Path, *, width: int, height: int, scratch: Path) -> Path:
    """The top of a page as PNG, `width` x `height` pixels of it at the left."""
    picture = scratch / f"{width}.png"
    window = f"--window-size={max(width, _NARROWEST_WINDOW)},{height}"
    _chromium(window, f"--screenshot={picture}", _frame(page, width, "", scratch))
    return picture


def printed_pages(page: Path, *, scratch: Path) -> int:
    """On how many sheets a page is printed."""
    pdf = scratch / "printed.pdf"
    _chromium("--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.absolute().as_uri())
    return len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))


def _frame(page: Path, width: int, script: str, scratch: Path) -> str:
    frame = scratch / f"frame-{width}.html"
    source = html.escape(page.read_text())
    frame.write_text(
        f'<!doctype html><body style="margin:0"><iframe style="border:0" width="{width}" height="2000"'
        f' onload="{script}" srcdoc="{source}"></iframe>'
    )
    return frame.as_uri()


def _chromium(*arguments: str) -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on PATH")
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
