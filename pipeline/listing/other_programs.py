"""What other programs leave beside images: companions, thumbnails, checkpoints, recycle bins. No run is about these.

Told by name, since the walk must stay cheap; only names that begin with "._" are opened, because a user may choose such
a name, too. A file or folder that is named outright is read all the same.
"""

from mribatch.pipeline.storage.content import read_beginning

_FOLDERS = {
    b"@eadir": "thumbnails of a Synology NAS",
    b".@__thumb": "thumbnails of a QNAP NAS",
    b".thumbnails": "thumbnails of a desktop",
    b"#recycle": "a recycle bin of a Synology NAS",
    b"@recycle": "a recycle bin of a QNAP NAS",
    b"$recycle.bin": "a recycle bin of Windows",
    b"recycler": "a recycle bin of Windows",
    b"system volume information": "a folder of Windows",
    b".trash": "a recycle bin",
    b".trashes": "a recycle bin of macOS",
    b".appledouble": "companions of macOS",
    b"__macosx": "companions of macOS in an archive",
    b".spotlight-v100": "an index of macOS",
    b".fseventsd": "a journal of macOS",
    b".ipynb_checkpoints": "checkpoints of Jupyter",
}
_FOLDER_STARTS = {b".trash-": "a recycle bin of Linux"}
_FILES = {
    b".ds_store": "a file of the macOS Finder",
    b".localized": "a file of the macOS Finder",
    b"icon\r": "a file of the macOS Finder",
    b"thumbs.db": "thumbnails of Windows",
    b"ehthumbs.db": "thumbnails of Windows",
    b"desktop.ini": "a file of the Windows Explorer",
}
_COMPANION_START = b"._"
_APPLE_MAGICS = (b"\0\x05\x16\x07", b"\0\x05\x16\0")  # AppleDouble, AppleSingle: RFC 1740


def describe_folder(name: bytes) -> str | None:
    """What another program keeps in a folder with this name, or None for a folder of the user."""
    lower = name.lower()
    for start, what in _FOLDER_STARTS.items():
        if lower.startswith(start):
            return what
    return _FOLDERS.get(lower)


def describe_file(name: bytes, path: bytes) -> str | None:
    """What another program wrote into this file, or None for a file of the user.

    Args:
        name: The last part of its path.
        path: What to open, also an object or a member of an archive, where the name alone does not tell.
    """
    if name.startswith(_COMPANION_START):
        return "an AppleDouble companion of macOS" if _is_apple_double(path) else None
    return _FILES.get(name.lower())


def _is_apple_double(path: bytes) -> bool:
    try:
        return read_beginning(path, 4) in _APPLE_MAGICS
    except OSError:
        return False
