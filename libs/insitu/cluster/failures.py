"""What a failure of Spark's tasks tells the driver."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from insitu.errors import UserError


@contextmanager
def workers_user_errors() -> Iterator[None]:
    """Around a Spark action: a `UserError` that a Python worker raised is raised here as itself."""
    try:
        yield
    except Exception as error:
        found = re.search(r"^insitu\.errors\.UserError: (.*)$", str(error), re.MULTILINE)
        if found is None:
            raise
        raise UserError.from_message(found[1]) from None
