"""Zip archives from strangers, read once and in one way.

Two readers of zip may see two archives in one file: by the table at the end or by the headers
before each member, by the first or the last of two members of one name, with names in the letters
that they are written in or not. So npk reads an archive here, refuses what leaves a choice, and
gives torch nothing but what was read.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path

from npk.errors import CheckpointError

# What members may become when they are unpacked: torch packs only code, and text does not shrink
# more.
LARGEST_GROWTH, ALWAYS_ALLOWED = 20, 1 << 26  # times the file; bytes
MOST_MEMBERS = 100_000
_END, _ENCRYPTED = b"PK\x05\x06", 0x1 | 0x40 | 0x2000


class _Strange(Exception):
    """What is wrong with an archive, in a few words."""


class Archive:
    """The members of a zip archive that has one reading; see the module's docstring."""

    def __init__(self, source: Path | io.BytesIO) -> None:
        """Read the table of contents.

        Args:
            source: a file that begins and ends as a zip archive, or its bytes.

        Raises:
            CheckpointError: no such archive, a truncated one, or one that readers could take in two
                ways.
        """
        self.path = path = source if isinstance(source, Path) else "a part of the file"
        self._file = source.open("rb") if isinstance(source, Path) else source
        try:
            self._size = self._file.seek(0, io.SEEK_END)
            self._file.seek(0)
            self._check_ends()
            self._zip = zipfile.ZipFile(self._file)
            self._members = self._zip.infolist()
            self._check_members()
        except Exception as error:  # a damaged archive raises nearly anything
            self._file.close()
            if isinstance(error, _Strange):
                raise CheckpointError(
                    f"{path} is no archive that torch writes: {error}. Save it again with torch."
                ) from error
            raise CheckpointError(
                f"{path} is truncated or damaged ({_line(error)}). Copy or save it again."
            ) from error
        self.names = [member.filename for member in self._members]

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    def read(self, name: str) -> bytes:
        """A member, compared with its check sum.

        Raises:
            CheckpointError: there is none of this name, or it was changed.
        """
        try:
            content = self._zip.read(name)
        except KeyError:
            raise CheckpointError(
                f"{self.path} has no part {name}. Copy or save it again."
            ) from None
        except Exception as error:
            raise CheckpointError(
                f"{self.path} was changed after it was saved: {name} in it is damaged "
                f"({_line(error)}). Copy it again from where it was made."
            ) from error
        if len(content) != self._zip.getinfo(name).file_size:
            raise CheckpointError(
                f"{self.path} is damaged: {name} in it is shorter than it says. "
                f"Copy or save it again."
            )
        return content

    def size(self, name: str) -> int:
        """The bytes of a member."""
        return self._zip.getinfo(name).file_size

    def check_sums(self) -> None:
        """Read every member, as :meth:`read` does; torch compares no check sums.

        Raises:
            CheckpointError: a member was changed.
        """
        for name in self.names:
            try:
                with self._zip.open(name) as member:
                    while member.read(1 << 20):
                        pass
            except Exception:
                self.read(name)  # says what is wrong

    def _check_ends(self) -> None:
        """One table of contents, at the very end; the first member at the very beginning."""
        head = self._file.read(4)
        self._file.seek(max(0, self._size - 22))
        end = self._file.read()
        if head != b"PK\x03\x04":
            raise _Strange("it does not begin with a member")
        if end[:4] != _END or end[20:] != b"\0\0":
            raise zipfile.BadZipFile("its table of contents is missing")
        self._file.seek(0)

    def _check_members(self) -> None:
        if len(self._members) > MOST_MEMBERS:
            raise _Strange(f"it has {len(self._members):,} members")
        seen: set[str] = set()
        for member in self._members:
            _check_name(member.orig_filename, seen)
            if member.flag_bits & _ENCRYPTED:
                raise _Strange(f"{member.filename} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Strange(f"{member.filename} is packed in a way that torch does not use")
        whole = sum(member.file_size for member in self._members)
        if whole > LARGEST_GROWTH * self._size + ALWAYS_ALLOWED or (
            sum(member.compress_size for member in self._members) > self._size
        ):
            raise _Strange(
                f"unpacked it would have {whole:,} bytes, and the file has {self._size:,}"
            )
        self._check_headers()

    def _check_headers(self) -> None:
        """Each member's own header says what the table says, and no two members share bytes."""
        free = 0
        for member in sorted(self._members, key=lambda member: member.header_offset):
            self._file.seek(member.header_offset)
            header = self._file.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile(f"{member.filename} is missing")
            flags, packed, length, extra = (
                *struct.unpack("<HH", header[6:10]),
                *struct.unpack("<HH", header[26:30]),
            )
            name = self._file.read(length)
            if member.header_offset < free or (free == 0 and member.header_offset):
                raise _Strange(f"{member.filename} is not where it should be")
            if (
                name != member.orig_filename.encode()
                or packed != member.compress_type
                or flags & _ENCRYPTED
            ):
                raise _Strange(f"{member.filename} is called otherwise in its own header")
            free = member.header_offset + 30 + length + extra + member.compress_size
        if free > self._size:
            raise zipfile.BadZipFile("its last member is cut")


def _check_name(name: str, seen: set[str]) -> None:
    """Plain names inside the archive, which differ in more than upper and lower case."""
    parts = name.split("/")
    if not name.isascii() or not name.isprintable() or "\\" in name or ":" in name:
        raise _Strange(f"{name!r} is no name of a member")
    if any(part in ("", ".", "..") for part in parts):
        raise _Strange(f"{name!r} leads out of the archive")
    if name.casefold() in seen:
        raise _Strange(f"it has two members {name}")
    seen.add(name.casefold())


def _line(error: Exception) -> str:
    if isinstance(error, zlib.error):
        return "it cannot be unpacked"
    return (
        f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}"
    )
