"""Kills this process in the midst of what it writes: at the n-th write, rename, removal or upload."""

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Cutter:
    """Counts what is done to files under `folder` from `begin` on, and ends the process at the `at`-th.

    A write is cut in its midst: half of it reaches the file. Everything else is cut before it is done; all of it, where
    `after` is set, behind.
    """

    def __init__(self, folder: Path, at: int | None, after: bool = False) -> None:
        self.folder, self.at, self.after = str(folder), at, after
        self.count = 0
        self.counting = False

    def install(self) -> "Cutter":
        """For the rest of this process's life."""
        io_open = io.open

        def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            stream = io_open(file, mode, *args, **kwargs)
            return Cut(stream, self) if set(mode) & set("wax+") and self.concerns(file) else stream

        # pathlib looks it up there at every call.
        io.open = opened
        import builtins

        builtins.open = opened
        for name in ("replace", "rename", "unlink", "remove", "rmdir"):
            setattr(os, name, self._counted(getattr(os, name)))
        return self

    def begin(self) -> None:
        """Count from here on."""
        self.counting = True

    def concerns(self, file: Any) -> bool:
        return isinstance(file, str | os.PathLike) and str(file).startswith(self.folder)

    def tick(self, cut: Callable[[], object] = lambda: None) -> bool:
        """One more; `cut` leaves half of it behind. True where the process ends once it is done."""
        if not self.counting:
            return False
        self.count += 1
        if self.count != self.at:
            return False
        if self.after:
            return True
        cut()
        self.end()
        return False

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def done(path: Any, *args: Any, **kwargs: Any) -> Any:
            ends = self.concerns(path) and self.tick()
            try:
                return real(path, *args, **kwargs)
            finally:
                if ends:
                    self.end()

        return done


class Cut:
    """A stream whose 1st, 2nd, 4th, 8th, … write is counted: pickle makes hundreds, one like the other."""

    def __init__(self, stream: Any, cutter: Cutter) -> None:
        self._stream, self._cutter, self._num_writes = stream, cutter, 0

    def write(self, data: Any) -> int:
        def half() -> None:
            self._stream.write(data[: len(data) // 2])
            self._stream.flush()

        self._num_writes += 1
        is_counted = self._num_writes & (self._num_writes - 1) == 0
        ends = is_counted and self._cutter.tick(half)
        written = self._stream.write(data)
        if ends:
            self._stream.flush()
            self._cutter.end()
        return written

    def __enter__(self) -> "Cut":
        self._stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._stream.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_CHANGES = {"put_object", "copy_object", "delete_object", "delete_objects", "create_multipart_upload", "upload_part",
            "complete_multipart_upload"}  # fmt: skip


class UploadCutter(Cutter):
    """Counts the requests that change an S3; one that is cut is not sent, or, where `after` is set, its answer is not
    waited for."""

    def __init__(self, at: int | None, after: bool = False) -> None:
        super().__init__(Path(), at, after)

    def install(self) -> "UploadCutter":
        from s3fs import S3FileSystem

        real, cutter = S3FileSystem._call_s3, self

        async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
            ends = method in _CHANGES and cutter.tick()
            result = await real(self, method, *args, **kwargs)
            if ends:
                cutter.end()
            return result

        S3FileSystem._call_s3 = call
        return self
