"""The cluster that `--on` names."""

from mribatch.core.errors import OptionError

_PREFIX = "ray"
_ADDRESS = "ray://"


def parse_address(text: str) -> str | None:
    """Read "ray" or "ray://HOST:PORT"; return the address, or None for the cluster that Ray itself finds or starts.

    Raises:
        OptionError: It is neither.
    """
    if text == _PREFIX:
        return None
    address = text.removeprefix(_ADDRESS)
    if text.startswith(_ADDRESS) and address:
        return address
    raise OptionError(f"'{text}' is no cluster", "give ray, or ray://HOST:PORT, the address that ray start printed")
