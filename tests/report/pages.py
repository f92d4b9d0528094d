"""What tests ask of a page."""

import re
from html.parser import HTMLParser

HOSTILE = '<script>alert(1)</script> & $x^2$ "q" Müßiggang-und-noch-viel-mehr-ohne-Leerzeichen'


def text(page: str) -> str:
    """The page's words, without its markup."""
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


class Tags(HTMLParser):
    """Every start tag with its attributes, and which tags are left open."""

    _VOID = frozenset({"meta", "img", "br", "!doctype"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
