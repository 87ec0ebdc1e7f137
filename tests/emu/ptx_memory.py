"""Memory that knows who touched it: bounds are looked at elsewhere, here the order of accesses.

Granules of 4 bytes. Two accesses by different threads, one of them a write, are in order if a
barrier of the block lies between them (their epochs differ), or a barrier of the warp that both are
in (their clocks differ); blocks of a launch are never in order.
"""

import numpy as np


class Memory:
    """A buffer, or the shared memory of all blocks that run together.

    Args:
        name: for messages.
        data: its bytes.
        readonly: whether a kernel may not write.
        blank: whether its content must be written before it is read.
        shared: whether it is shared memory, of which each block has its own part.
        tracked: whether the order of accesses is looked at.
    """

    def __init__(self, name, data, readonly=False, blank=False, shared=False, tracked=True):
        self.name, self.data, self.readonly, self.shared, self.tracked = (
            name,
            data,
            readonly,
            shared,
            tracked,
        )
        granules = -(-len(data) // 4) + 4 if tracked else 0
        self.known = np.full(granules, not blank)
        self.writer, self.reader = np.full((2, granules), -1)
        self.written, self.read = np.zeros((2, granules), np.int64)  # epochs
        self.write_clock, self.read_clock = np.zeros((2, granules), np.int64)
        self.write_atomic, self.readers_many = np.zeros((2, granules), bool)
        self.readers_of_one_warp = np.ones(granules, bool)

    def access(self, who, offset, size, write, atomic):
        """Note an access; returns ``None``, or what is wrong and the number of the access that is."""
        for part in range(max(1, size // 4) if self.tracked else 0):
            at = offset // 4 + part
            wrong = self._write(at, who, size, atomic) if write else self._look(at, who, atomic)
            if wrong:
                return wrong
        return None

    def _unordered(self, who, last, epoch, clock, many=None):
        """Accesses of ``who`` that nothing orders behind earlier ones by others; ``many``: where
        several threads were the last.
        """
        same_warp = last // 32 == who.thread // 32
        other = (last >= 0) & ((last != who.thread) if many is None else many[0])
        other &= ~(same_warp & (clock < who.clock) & (True if many is None else many[1]))
        if self.shared:
            return other & (epoch == who.epoch)
        return other & (
            (last // who.block_size != who.thread // who.block_size) | (epoch == who.epoch)
        )

    def _after_write(self, at, who, atomic, what):
        bad = self._unordered(who, self.writer[at], self.written[at], self.write_clock[at]) & ~(
            atomic & self.write_atomic[at]
        )
        if bad.any():
            return (
                f"RACE {what} of {self.name}, not ordered after a write by thread "
                f"{self.writer[at[bad][0]] % who.block_size}",
                bad.argmax(),
            )
        return None

    def _look(self, at, who, atomic):
        if (~self.known[at]).any():
            return f"UNINIT read of {self.name}", (~self.known[at]).argmax()
        if wrong := self._after_write(at, who, atomic, "read"):
            return wrong
        again = (self.read[at] == who.epoch) & (self.reader[at] >= 0)
        far = self.reader[at] // 32 != who.thread // 32
        self.readers_of_one_warp[at] = np.where(again, self.readers_of_one_warp[at] & ~far, True)
        self.readers_many[at] = np.where(
            again, self.readers_many[at] | (self.reader[at] != who.thread), False
        )
        self.reader[at], self.read[at], self.read_clock[at] = who.thread, who.epoch, who.clock
        order = np.argsort(at, kind="stable")
        twice = np.diff(at[order]) == 0  # threads that read the same in one instruction
        self.readers_many[at[order][1:][twice]] = True
        warps = np.diff((who.thread // 32)[order]) != 0
        self.readers_of_one_warp[at[order][1:][twice & warps]] = False
        return None

    def _write(self, at, who, size, atomic):
        if atomic and (~self.known[at]).any():
            return f"UNINIT atomic access of {self.name}", (~self.known[at]).argmax()
        if wrong := self._after_write(at, who, atomic, "write"):
            return wrong
        read = self.reader[at], self.read[at], self.read_clock[at]
        many = self.readers_many[at]
        bad = self._unordered(who, *read) | self._unordered(
            who, *read, (many, self.readers_of_one_warp[at])
        )
        if not atomic and bad.any():
            return (
                f"RACE write of {self.name}, not ordered after a read by thread "
                f"{read[0][bad][0] % who.block_size}"
            ), bad.argmax()
        if not atomic and size >= 4 and len(np.unique(at)) < len(at):
            return f"RACE two threads write {self.name} in one instruction", 0
        self.writer[at], self.written[at], self.write_clock[at] = who.thread, who.epoch, who.clock
        self.write_atomic[at], self.known[at] = atomic, True
        return None


class Accessors:
    """The threads of one access: number in the launch, epoch of their block, clock of their warp,
    and threads of a block.
    """

    def __init__(self, thread, epoch, clock, block_size):
        self.thread, self.epoch, self.clock, self.block_size = thread, epoch, clock, block_size
