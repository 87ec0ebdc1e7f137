"""Run PTX, as NVRTC makes it from the sources that ship, on NumPy: one entry of an array for each
thread, many blocks at once.

The threads that are farthest back step first, so that diverged ones meet again. Looked at: bounds
of every buffer and of shared memory, alignment, shared memory that was never written, accesses that
no barrier orders (across blocks too), barriers that not all threads reach, writes to inputs. An
instruction that is not known raises.
"""

import re

import numpy as np

from emu import Violation
from emu.ptx_arithmetic import OPERATIONS, widened
from emu.ptx_memory import Accessors, Memory
from emu.ptx_program import UNSIGNED, Program, dtype_of, members
from emu.ptx_warp import COLLECTIVES

_SHIFT = 40  # buffer i lies at (i + 1) << _SHIFT
_END = 1 << 30
_NOTHING = {"membar", "fence", "pragma"}
_ATOMICS = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
}  # fmt: skip


class PtxKernel:
    """A kernel that is called like one of CuPy.

    Args:
        ptx: the text.
        name: of the kernel.
    """

    def __init__(self, ptx, name):
        self.program = Program(ptx, name)

    def __call__(self, grid, threads, args, written=(), blank=None, together=8192, tracked=True):
        """Run ``grid`` blocks.

        Args:
            grid: number of blocks.
            threads: of a block.
            args: arrays and NumPy's scalars.
            written: numbers of the arrays that the kernel writes.
            blank: of those that hold nothing yet; ``None``: all that are written.
            together: so many threads run at once.
            tracked: whether to look at the order of accesses to buffers, which takes nine times
                their memory.
        """
        if threads > self.program.threads:
            raise Violation(
                f"LAUNCH {threads} threads, __launch_bounds__ allows {self.program.threads}"
            )
        if len(args) != len(self.program.params):
            raise Violation(
                f"LAUNCH {len(args)} arguments for {len(self.program.params)} parameters"
            )
        buffers, values, blank = [], {}, written if blank is None else blank
        for i, (arg, (kind, name)) in enumerate(zip(args, self.program.params, strict=True)):
            if isinstance(arg, np.ndarray):
                buffers.append(
                    Memory(
                        f"arg{i}",
                        arg.reshape(-1).view(np.uint8),
                        i not in written,
                        i in blank,
                        tracked=tracked,
                    )
                )
                values[name] = np.uint64(len(buffers) << _SHIFT)
            elif arg.dtype.itemsize * 8 != int(kind[1:]):
                raise Violation(f"LAUNCH argument {i} is {arg.dtype}, the kernel takes .{kind}")
            else:
                values[name] = arg
        for blocks in np.array_split(np.arange(grid), max(1, grid * threads // together)):
            if len(blocks):
                _Run(self.program, grid, threads, blocks, values, buffers).go()


class _Run:
    """Some blocks of a launch, all threads of which step together."""

    def __init__(self, program, grid, threads, blocks, values, buffers):
        self.program, self.threads, self.values, self.buffers = program, threads, values, buffers
        self.block, self.size = np.repeat(blocks, threads), threads * len(blocks)
        self.slot = np.repeat(np.arange(len(blocks)), threads)
        thread = np.tile(np.arange(threads), len(blocks))
        self.number = thread + self.block * threads
        self.room = max(program.shared, 4)
        self.shared = Memory(
            "__shared__", np.full(self.room * len(blocks), 0xA5, np.uint8), blank=True, shared=True
        )
        self.registers = {"%laneid": (thread % 32).astype(np.uint32)}
        places = {
            "tid": (thread, 0),
            "ctaid": (self.block, 0),
            "ntid": (np.full(self.size, threads), 1),
            "nctaid": (np.full(self.size, grid), 1),
        }
        for name, (along, other) in places.items():
            for axis in "xyz":
                self.registers[f"%{name}.{axis}"] = (
                    along if axis == "x" else np.full(self.size, other)
                ).astype(np.uint32)
        self.epoch, self.clock = np.ones((2, self.size), np.int64)
        self.at = np.zeros(self.size, np.int64)
        self.alive, self.waiting = np.ones(self.size, bool), np.zeros(self.size, bool)

    def fail(self, what, thread=None):
        """Stop, and say where."""
        who = (
            ""
            if thread is None
            else (f" by block {self.block[thread]} thread {self.number[thread] % self.threads}")
        )
        raise Violation(f"{what}{who} at line {self.instruction.line}: {self.instruction.text}")

    # --- control

    def go(self):
        """Run to the end."""
        while self.alive.any():
            ready = self.alive & ~self.waiting
            if ready.any():
                self._advance(ready)
            else:
                self._pass_barrier()

    def _pass_barrier(self):
        places = np.where(self.waiting, self.at, -1).reshape(-1, self.threads)
        last, first = places.max(1), np.where(places < 0, _END, places).min(1)
        self.instruction = self.program.instructions[int(last.max()) - 1]
        if (last != first)[last >= 0].any():
            self.fail("BARRIER threads of one block wait at different barriers")
        if ((~self.alive).reshape(-1, self.threads).any(1) & (last >= 0)).any():
            self.fail("BARRIER threads of the block had already returned")
        self.epoch[self.waiting] += 1
        self.waiting[:] = False

    def _advance(self, ready):
        """Run the threads that are farthest back, until others can join them or they part."""
        i = int(self.at[ready].min())
        mask = ready & (self.at == i)
        alone = mask.sum() == ready.sum()
        while True:
            self.instruction = ins = self.program.instructions[i]
            chosen = mask
            if ins.guard:
                chosen = mask & (self.registers[ins.guard] ^ ins.negated)
            i += 1
            if ins.op[0] == "bra":
                if not self._branch(chosen, mask, i):
                    return
                i = int(self.at[mask][0])
            elif ins.op[0] in ("ret", "exit"):
                self.at[mask] = i
                self.alive[chosen], self.at[chosen] = False, _END
                return
            elif ins.op[0] in ("bar", "barrier") and "warp" not in ins.op:
                if ins.args not in (["0"], []):
                    self.fail("UNSUPPORTED named barrier")
                self.waiting[chosen], self.at[mask] = True, i
                return
            elif chosen.any():
                self._step(ins, chosen)
            if not alone and i in self.program.joins:
                self.at[mask] = i
                return

    def _branch(self, chosen, mask, following):
        """Whether all go the same way."""
        self.at[mask] = following
        self.at[chosen] = self.program.labels[self.instruction.args[0]]
        return chosen.sum() in (0, mask.sum())

    # --- operands

    def get(self, arg, kind):
        """An operand as a NumPy type."""
        kind = np.dtype(kind)
        if arg[0] == "%":
            if arg not in self.registers:
                self.fail(f"UNINIT register {arg}")
            value = self.registers[arg]
            return (
                value.view(kind)
                if value.itemsize == kind.itemsize
                else value.astype(UNSIGNED[8 * kind.itemsize]).view(kind)
            )
        if arg in self.program.symbols:
            return np.full(self.size, self.program.symbols[arg], kind)
        if arg[:2] in ("0f", "0d"):
            bits = {"0f": np.uint32, "0d": np.uint64}[arg[:2]](int(arg[2:], 16))
            return np.full(self.size, bits.view({"0f": np.float32, "0d": np.float64}[arg[:2]]))
        number = int(arg.rstrip("U"), 0)
        return np.full(
            self.size, number & ((1 << 8 * kind.itemsize) - 1), UNSIGNED[8 * kind.itemsize]
        ).view(kind)

    def predicate(self, arg):
        """A register of truth, or a number that stands for one."""
        if arg.lstrip("!")[0] != "%":
            return np.full(self.size, int(arg) != 0)
        return self.registers[arg.lstrip("!")] ^ arg.startswith("!")

    def by_warp(self, arg):
        """A register of 32 bits, ``(warps, 32)``."""
        return self.get(arg, np.uint32).reshape(-1, 32)

    def put(self, name, value, chosen):
        """Write a register of the threads that are chosen."""
        if name == "_":
            return
        value = (
            np.broadcast_to(np.asarray(value).reshape(-1), (self.size,))
            if np.size(value) == 1
            else np.asarray(value).reshape(-1)
        )
        if value.dtype.kind == "i":
            value = value.view(UNSIGNED[8 * value.itemsize])
        old = self.registers.get(name)
        self.registers[name] = (
            value.copy() if old is None else np.where(chosen, value.view(old.dtype), old)
        )

    # --- one instruction

    def _step(self, ins, chosen):
        name = ins.op[0]
        if name in _NOTHING:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            if name in OPERATIONS:
                self.put(ins.args[0], OPERATIONS[name](self, ins), chosen)
            elif name in COLLECTIVES:
                if self.threads % 32:
                    self.fail("UNSUPPORTED operation of warps in a block that is not whole warps")
                for target, value in COLLECTIVES[name](self, ins, chosen.reshape(-1, 32)):
                    self.put(target, value, chosen)
            elif (
                known := {
                    "ld": self._load,
                    "st": self._store,
                    "mov": self._move,
                    "bar": self._warp_barrier,
                }.get(name)
            ) is not None:
                known(ins, chosen)
            elif name in ("atom", "red"):
                self._atomic(ins, chosen)
            else:
                self.fail("UNSUPPORTED instruction")

    def _move(self, ins, chosen):
        target, source = ins.args
        if target[0] == "{":
            value = self.get(source, np.uint64)
            low, high = members(target)
            self.put(low, value.astype(np.uint32), chosen)
            self.put(high, (value >> np.uint64(32)).astype(np.uint32), chosen)
        elif source[0] == "{":
            low, high = (self.get(name, np.uint32).astype(np.uint64) for name in members(source))
            self.put(target, low | high << np.uint64(32), chosen)
        else:
            self.put(
                target,
                self.predicate(source)
                if ins.op[-1] == "pred"
                else self.get(source, dtype_of(ins.op[-1])),
                chosen,
            )

    def _warp_barrier(self, ins, chosen):
        here, alive = chosen.reshape(-1, 32), self.alive.reshape(-1, 32)
        full = (here == alive).all(1) & here.any(1)
        if (self.get(ins.args[0], np.uint32)[chosen] != 0xFFFFFFFF).any() or not full[
            here.any(1)
        ].all():
            self.fail("UNSUPPORTED barrier of part of a warp")
        self.clock[np.repeat(full, 32)] += 1

    def _load(self, ins, chosen):
        if ins.op[1] == "param":
            self.put(ins.args[0], np.full(self.size, self.values[ins.args[1].strip("[] ")]), chosen)
            return
        kind, targets = dtype_of(ins.op[-1]), members(ins.args[0])
        found = np.zeros((len(targets), self.size), kind)
        for memory, threads, offset in self._located(
            ins, ins.args[1], chosen, kind.itemsize * len(targets), write=False
        ):
            for j in range(len(targets)):
                at = (offset + j * kind.itemsize)[:, None] + np.arange(kind.itemsize)
                found[j, threads] = memory.data[at].view(kind)[:, 0]
        for target, value in zip(targets, found, strict=True):
            self.put(target, widened(value), chosen)

    def _store(self, ins, chosen):
        kind, sources = dtype_of(ins.op[-1]), members(ins.args[1])
        values = [self.get(name, widened(np.zeros(0, kind)).dtype).astype(kind) for name in sources]
        for memory, threads, offset in self._located(
            ins, ins.args[0], chosen, kind.itemsize * len(sources), write=True
        ):
            for j, value in enumerate(values):
                at = (offset + j * kind.itemsize)[:, None] + np.arange(kind.itemsize)
                memory.data[at] = value[threads].view(np.uint8).reshape(-1, kind.itemsize)

    def _atomic(self, ins, chosen):
        target, address, *sources = ins.args if ins.op[0] == "atom" else ("_", *ins.args)
        kind = dtype_of(ins.op[-1])
        names = [name for name in ins.op if name in (*_ATOMICS, "cas")]
        values, found = [self.get(name, kind) for name in sources], np.zeros(self.size, kind)
        for memory, threads, offset in self._located(
            ins, address, chosen, kind.itemsize, write=True, atomic=True
        ):
            cells = memory.data[: len(memory.data) // kind.itemsize * kind.itemsize].view(kind)
            for thread, cell in zip(threads, offset // kind.itemsize, strict=True):
                old, new = cells[cell], values[-1][thread]
                found[thread] = old
                if names[0] == "cas":
                    cells[cell] = new if old == values[0][thread] else old
                else:
                    cells[cell] = _ATOMICS[names[0]](old, new)
        self.put(target, found, chosen)

    # --- memory

    def _located(self, ins, arg, chosen, size, write, atomic=False):
        """(memory, threads, offsets) of an access, which is looked at and noted."""
        base, plus = re.fullmatch(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]", arg).groups()
        threads = chosen.nonzero()[0]
        address = self.get(base, np.uint32 if self._is_short(base) else np.uint64).astype(np.int64)[
            threads
        ] + int(plus or "0", 0)
        if (address % size).any():
            self.fail(f"ALIGN access of {size} bytes", threads[(address % size).argmax()])
        places = self._in_shared if "shared" in ins.op else self._in_buffers
        what = f"BOUNDS {'write' if write else 'read'} of {size} bytes"
        for memory, some, offset in places(what, address, threads, size):
            if write and memory.readonly:
                self.fail(f"READONLY write to {memory.name}", some[0])
            who = Accessors(self.number[some], self.epoch[some], self.clock[some], self.threads)
            if wrong := memory.access(who, offset, size, write, atomic):
                self.fail(f"{wrong[0]}+{offset[wrong[1]]}", some[wrong[1]])
            yield memory, some, offset

    def _is_short(self, base):
        return base in self.registers and self.registers[base].itemsize == 4

    def _in_shared(self, what, address, threads, size):
        outside = (address < 0) | (address + size > self.program.shared)
        if outside.any():
            self.fail(
                f"{what} at shared memory + {address[outside][0]} of {self.program.shared}",
                threads[outside.argmax()],
            )
        yield self.shared, threads, address + self.slot[threads] * self.room

    def _in_buffers(self, what, address, threads, size):
        number = address >> _SHIFT
        for i in np.unique(number):
            those = number == i
            offset = address[those] & ((1 << _SHIFT) - 1)
            if not 1 <= i <= len(self.buffers):
                self.fail(f"{what} at {address[those][0]:#x}, in no buffer", threads[those][0])
            memory = self.buffers[i - 1]
            outside = offset + size > len(memory.data)
            if outside.any():
                place = int(offset[outside][0])
                place -= (1 << _SHIFT) if place >> (_SHIFT - 1) else 0
                self.fail(
                    f"{what} at {memory.name}{place:+d} of {len(memory.data)}",
                    threads[those][outside.argmax()],
                )
            yield memory, threads[those], offset
