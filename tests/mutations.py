"""A mutator of files: bytes, numbers, JSON values and members of archives are changed at random,
with their check sums mended or not.
"""

import io
import json
import shutil
import struct
import zipfile
import zlib

EDGES = (
    0,
    1,
    -1,
    2**7,
    2**8 - 1,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    -(2**31),
    -(2**63),
    2**63 - 1,
    10**9,
)
VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**62,
    10**30,
    0.5,
    1e300,
    float("nan"),
    "",
    "x",
    "../x",
    "\0",
    "é" * 50,
    [],
    {},
    [[]],
    {"x": 1},
)


def flip(rng, content):
    found = bytearray(content)
    for _ in range(int(rng.choice((1, 1, 1, 3, 20)))):
        found[rng.integers(len(found))] ^= 1 << rng.integers(8)
    return bytes(found)


def overwrite(rng, content):
    found = bytearray(content)
    start, length = rng.integers(len(found)), int(rng.integers(1, 16))
    found[start : start + length] = bytes(
        rng.choice((0, 255, 65, rng.integers(256)), size=length).tolist()
    )[: len(found) - start]
    return bytes(found)


def truncate(rng, content):
    return content[: rng.integers(len(content))]


def insert(rng, content):
    at = rng.integers(len(content) + 1)
    return content[:at] + rng.bytes(int(rng.integers(1, 40))) + content[at:]


def delete(rng, content):
    at = rng.integers(len(content))
    return content[:at] + content[at + int(rng.integers(1, 40)) :]


def swap(rng, content):
    size = int(rng.integers(1, max(2, len(content) // 4)))
    a, b = sorted(int(at) for at in rng.integers(0, max(1, len(content) - size), 2))
    if b < a + size:
        return content[b:] + content[:b]
    return (
        content[:a]
        + content[b : b + size]
        + content[a + size : b]
        + content[a : a + size]
        + content[b + size :]
    )


def repeat(rng, content):
    at = rng.integers(len(content))
    return content[:at] + content[at : at + 64] * int(rng.integers(2, 30)) + content[at:]


def renumber(rng, content):
    """Whole numbers of 2, 4 or 8 bytes become very small or very large."""
    found, size = bytearray(content), int(rng.choice((2, 4, 8)))
    small = [
        at
        for at in range(0, len(found) - size)
        if any(found[at : at + size]) and not any(found[at + 1 : at + size])
    ]
    at = (
        int(rng.choice(small))
        if small and rng.random() < 0.7
        else int(rng.integers(max(1, len(found) - size)))
    )
    number = int(EDGES[rng.integers(len(EDGES))]) % 2 ** (8 * size)
    found[at : at + size] = number.to_bytes(size, "little" if rng.random() < 0.8 else "big")
    return bytes(found)


def rejson(rng, content):
    """A value of a JSON text becomes another one, or its key does."""
    parsed = json.loads(content)
    places = []
    waiting = [parsed]
    while waiting:
        inner = waiting.pop()
        keys = (
            list(inner)
            if isinstance(inner, dict)
            else list(range(len(inner)))
            if isinstance(inner, list)
            else []
        )
        places.extend((inner, key) for key in keys)
        waiting.extend(inner[key] for key in keys)
    if not places:
        return json.dumps(VALUES[rng.integers(len(VALUES))]).encode()
    holder, key = places[rng.integers(len(places))]
    how = rng.random()
    if how < 0.7:
        other = places[rng.integers(len(places))]
        holder[key] = (
            VALUES[rng.integers(len(VALUES))]
            if rng.random() < 0.7
            else json.loads(json.dumps(other[0][other[1]]))
        )
    elif isinstance(holder, dict):
        moved = holder.pop(key)
        if how < 0.85:
            holder[str(VALUES[rng.integers(len(VALUES))])] = moved
    else:
        holder.pop(key)
    return json.dumps(parsed).encode()


BYTES = (flip, flip, overwrite, truncate, insert, delete, swap, repeat, renumber, renumber)


def mutated(rng, content):
    """Other bytes than ``content``."""
    if not content:
        return rng.bytes(8)
    if rng.random() < 0.5 and content.lstrip()[:1] in (b"{", b"["):
        try:
            return rejson(rng, content)
        except ValueError:
            pass
    return BYTES[rng.integers(len(BYTES))](rng, content)


def rezipped(rng, content):
    """An archive with one member changed and its check sum mended; or a member is lost, doubled or
    renamed.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [
            (info.filename, archive.read(info), info.compress_type) for info in archive.infolist()
        ]
    at = int(rng.integers(len(members)))
    name, inside, packed = members[at]
    how = rng.random()
    if how < 0.8:
        members[at] = name, mutated(rng, inside), packed
    elif how < 0.87:
        members.pop(at)
    elif how < 0.93:
        members.append((name.upper() if rng.random() < 0.5 else name + "x", inside, packed))
    else:
        members[at] = (
            mutated(rng, name.encode()).decode("latin-1").replace("\0", "0") or "x",
            inside,
            packed,
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member in members:
            archive.writestr(member[0], member[1], compress_type=member[2])
    return buffer.getvalue()


def resafetensors(rng, content):
    """The header of a safetensors file changed as JSON, and its length with it."""
    (length,) = struct.unpack("<Q", content[:8])
    header = rejson(rng, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate_file(rng, source, target):
    """Write a mutation of a file."""
    content = source.read_bytes()
    if content[:2] == b"PK" and rng.random() < 0.6:
        target.write_bytes(rezipped(rng, content))
    elif source.suffix == ".safetensors" and rng.random() < 0.4:
        target.write_bytes(resafetensors(rng, content))
    else:
        target.write_bytes(mutated(rng, content))


def mutate_folder(rng, source, target):
    """Write a copy of a folder with a file in it changed, lost, doubled or renamed."""
    shutil.copytree(source, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    # small files, which describe the others, as often as large ones
    path = (
        files[rng.integers(len(files))]
        if rng.random() < 0.5
        else min((files[i] for i in rng.integers(len(files), size=4)), key=size)
    )
    how = rng.random()
    if how < 0.85:
        path.write_bytes(mutated(rng, path.read_bytes()))
    elif how < 0.9:
        path.unlink()
    elif how < 0.95:
        shutil.copy(path, path.with_name(path.name + "x"))
    else:
        other = files[rng.integers(len(files))]
        content = other.read_bytes()
        other.write_bytes(path.read_bytes())
        path.write_bytes(content)


def size(path):
    return path.stat().st_size


def seed(kind, number):
    """The same for a kind and a number, everywhere."""
    return zlib.crc32(f"{kind} {number}".encode())
