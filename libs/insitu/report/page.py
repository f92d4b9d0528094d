"""Values → a self-contained HTML page: the templates beside this file, every value escaped."""

import time
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """A page of `templates/`, by its file name."""
    pages = Environment(
        loader=PackageLoader("insitu.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"number": number, "words": words, "duration": duration, "time": time_of_day}
    return pages.get_template(template).render(values)


def number(value: float | None, digits: int = 3) -> str:
    """With a fixed number of decimals; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"  # noqa: RUF001 - an en dash is meant


def words(value: Any) -> str:
    """A JSON value for a person: lists by commas, whole numbers in ranges, nothing as a dash."""
    if value is None or value == [] or value == {}:
        return "–"  # noqa: RUF001 - an en dash is meant
    if isinstance(value, list):
        return ", ".join(map(words, value))
    return str(value)


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def time_of_day(seconds: float) -> str:
    """Day and minute in UTC of seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
