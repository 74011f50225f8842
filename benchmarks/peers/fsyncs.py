"""Counts how often SQLite asks the disk to keep what it has, in this process.

SQLite reaches the disk through a table of functions, its VFS. From `count_fsyncs` on, the default
VFS hands out files whose ``xSync`` counts before it syncs: one fdatasync or fsync each. The sync of
a folder, which a rollback journal needs, is no file's: it opens the folder for nothing else, so
those openings are counted. Both come to about a microsecond a sync.

The VFS is found in the library that Python's sqlite3 is linked with. Where that exports nothing, or
on a system without this VFS, there is no count.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

POINTER = ctypes.c_void_p
INT = ctypes.c_int
OPEN = ctypes.CFUNCTYPE(INT, POINTER, POINTER, ctypes.POINTER(POINTER), INT, POINTER)
SYNC = ctypes.CFUNCTYPE(INT, POINTER, INT)
OPEN_FOLDER = ctypes.CFUNCTYPE(INT, POINTER, POINTER)
GET_CALL = ctypes.CFUNCTYPE(POINTER, POINTER, ctypes.c_char_p)
SET_CALL = ctypes.CFUNCTYPE(INT, POINTER, ctypes.c_char_p, POINTER)
FileMethods = POINTER * 19
"""``sqlite3_io_methods`` as words: the version first, ``xSync`` the sixth."""
SYNC_WORD = 5


class Vfs(ctypes.Structure):
    """``sqlite3_vfs`` of version 3."""

    _fields_ = (
        ("version", INT),
        ("file_size", INT),
        ("longest_path", INT),
        ("next", POINTER),
        ("name", ctypes.c_char_p),
        ("application_data", POINTER),
        ("open", POINTER),
        ("others", POINTER * 12),
        ("set_call", POINTER),
        ("get_call", POINTER),
        ("next_call", POINTER),
    )


class FsyncCount:
    """How many syncs there were since the counting began."""

    def __init__(self, vfs: Any) -> None:
        self.total = 0
        self._open = OPEN(vfs.open)
        self._methods: dict[int, Any] = {}
        self._callbacks: list[Any] = []
        self._open_folder: Callable[[Any, Any], int] = OPEN_FOLDER(
            GET_CALL(vfs.get_call)(ctypes.addressof(vfs), b"openDirectory") or 0
        )
        vfs.open = self._keep(OPEN(self._on_open))
        folder = self._keep(OPEN_FOLDER(self._on_open_folder))
        SET_CALL(vfs.set_call)(ctypes.addressof(vfs), b"openDirectory", folder)

    def _keep(self, callback: Any) -> int:
        """Keep a callback alive, also while Python ends: files are closed as late as that."""
        self._callbacks.append(callback)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))
        return ctypes.cast(callback, POINTER).value or 0

    def _on_open(self, vfs: Any, name: Any, file: Any, flags: int, out_flags: Any) -> int:
        code: int = self._open(vfs, name, file, flags, out_flags)
        original = file[0]
        if original:
            if original not in self._methods:
                self._methods[original] = self._count_in(original)
            file[0] = ctypes.addressof(self._methods[original])
        return code

    def _count_in(self, address: int) -> Any:
        """Return a copy of a file's functions whose ``xSync`` counts."""
        methods = FileMethods.from_buffer_copy(
            ctypes.string_at(address, ctypes.sizeof(FileMethods))
        )
        sync = SYNC(methods[SYNC_WORD] or 0)

        def count_and_sync(file: Any, flags: int) -> int:
            self.total += 1
            code: int = sync(file, flags)
            return code

        methods[SYNC_WORD] = self._keep(SYNC(count_and_sync))
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(methods))
        return methods

    def _on_open_folder(self, name: Any, descriptor: Any) -> int:
        self.total += 1
        return self._open_folder(name, descriptor)


def count_fsyncs() -> FsyncCount | None:
    """Begin to count; files that are open already are left out. `None` where it can't be done."""
    try:
        import _sqlite3

        find = ctypes.CDLL(_sqlite3.__file__).sqlite3_vfs_find
    except (ImportError, AttributeError, OSError):
        return None
    find.restype = ctypes.POINTER(Vfs)
    vfs = find(None).contents
    return FsyncCount(vfs) if vfs.version >= 3 and vfs.name == b"unix" else None
