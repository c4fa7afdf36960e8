"""Log lines with timestamps: to a file with --log, to stderr with -v."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator

from mribatch.core.errors import MribatchError

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextlib.contextmanager
def logging_to(file: str | None, verbose: bool) -> Iterator[None]:
    """Send the log of the package to a file (appended to) and to stderr; an error that ends the command is logged.

    Raises:
        MribatchError: The file cannot be opened.
    """
    logger = logging.getLogger("mribatch")
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if verbose else []
    if file is not None:
        try:
            handlers.append(logging.FileHandler(file, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise MribatchError(
                f"cannot write --log {file}: {error.strerror or error}", "name a file that you may write to"
            ) from error
    if not handlers:  # logging would print errors to stderr by itself, which the command does better
        yield
        return
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    except MribatchError as error:
        logger.error("%s", error)
        raise
    except BaseException as error:
        logger.error("ended by %s", type(error).__name__)
        raise
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
