"""The CUDA kernels on paper: the page says what the script prints, the promise holds, and machine
code is read as it is meant.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import cuda_roofline as roofline  # noqa: E402
import sass  # noqa: E402

sys.path.remove(str(ROOT / "benchmarks"))
STAGES = roofline.pooled()


def test_page_has_the_tables_of_the_script():
    printed = roofline.BLOCK.search(roofline.PAGE.read_text())[0]
    assert (
        printed.removesuffix("<!-- end -->").split("-->\n", 1)[1].strip()
        == roofline.report().strip()
    ), "the kernels or their compiler have changed: python benchmarks/cuda_roofline.py --write"


def test_page_tells_that_nothing_was_measured():
    assert "Nothing on this page has been measured on a GPU." in roofline.PAGE.read_text()


def test_every_kernel_has_its_row():
    made = {id(row.spec(80)) for row in roofline.ROWS}
    assert {id(spec) for spec in roofline.KERNELS.values()} <= made


@pytest.mark.parametrize("row", STAGES, ids=lambda row: row.name)
def test_pooled_pair_takes_at_most_20_us(row):
    """Even where a device issues, and does everything else, half as fast as it could."""
    times = roofline.times(row, roofline.H100)
    assert 2 * max(times.values()) <= roofline.PROMISED, times


@pytest.mark.parametrize("device", roofline.DEVICES, ids=lambda device: device.name)
@pytest.mark.parametrize("row", STAGES, ids=lambda row: row.name)
def test_loop_over_layers_is_the_whole_layer(row, device):
    """What the source asks of a warp for 4 x 32 x 32 cells is there, no more and no less."""
    code = roofline.compiled(row, device.arch)[0]
    loops = [loop for loop in code.loops if code.has(loop, "BMMA")]
    assert len(loops) == 1, "the loop over layers has no other one inside"
    asked = code.own(loops[0])
    cells = 4 * 32 * 32 // 32
    assert asked["tensor"] == 4 * 2 * 4  # rows, fragments of 16 positions, fragments of 8
    assert asked["tensor"] * 16 * 8 == 32 * cells
    # rows at both ends of a warp: two stores and two loads of four cells each
    assert asked["shared"] == 2 * 2 * cells // 4 // 4
    assert asked["fp32"] >= 6 * cells  # four additions, a scale and a product
    words = [i.words for i in code.of(loops[0])]
    assert sum(w[0] == "BAR" for w in words) == cells // 4 // 4
    assert {w[-1] for w in words if w[0] in {"LDS", "STS"}} == {"128"}


def test_machine_code_is_read():
    text = """
.L_x_1:
        /*0000*/                   LDS.128 R4, [R0] ;
.L_x_2:
        /*0010*/              @!P0 FADD.FTZ R1, R2, R3 ;
        /*0020*/                   SHFL.IDX PT, R1, R2, R3, 0x1f ;
        /*0030*/               @P0 BRA `(.L_x_2) ;
        /*0040*/               @P1 BRA `(.L_x_3) ;
        /*0050*/              @UP0 LDG.E.64.CONSTANT R4, desc[UR4][R2.64] ;
        /*0060*/                   BRA `(.L_x_1) ;
.L_x_3:
        /*0070*/                   EXIT ;
"""
    code = sass.Code.__new__(sass.Code)
    code.instructions = sass._parsed(text)
    code.loops = sass._loops(code.instructions)
    assert [i.words[0] for i in code.instructions] == [
        "LDS",
        "FADD",
        "SHFL",
        "BRA",
        "BRA",
        "LDG",
        "BRA",
        "EXIT",
    ]
    assert code.loops == [sass.Loop(0, 6), sass.Loop(1, 3)]
    inner, outer = code.smallest("FADD"), code.smallest("LDG")
    assert (inner, code.around(inner), outer) == (sass.Loop(1, 3), sass.Loop(0, 6), sass.Loop(0, 6))
    assert code.own(inner) == sass.Asked(fp32=1, shuffle=1, control=1, wavefronts=1)
    assert code.own(outer) == sass.Asked(shared=1, **{"global": 1}, control=2, wavefronts=6)
    assert code.own() == sass.Asked(control=1, wavefronts=0)
    assert (code.own(inner) * 3 + code.own(outer)).instructions == 13


def test_unknown_instructions_are_not_counted_as_nothing():
    with pytest.raises(KeyError, match="NEWOP"):
        sass.Asked.by(iter(sass._parsed("        /*0000*/                   NEWOP R1 ;")))


def test_work_becomes_times():
    """One instruction of each unit, on all multiprocessors, for a second."""
    device = roofline.H100
    turns = device.multiprocessors * device.clock
    work = roofline.Work(
        sass.Asked(fp32=4, wavefronts=2) * turns, 5120 * device.clock, 2 * device.memory
    )
    times = work.times(device)
    assert {k: round(v, 9) for k, v in times.items() if v} == {
        "issue": 1,
        "floats": 1,
        "shared": 2,
        "L2": 1,
        "memory": 2,
    }
    tensor = roofline.Work(sass.Asked(tensor=9e15 / (2 * 16 * 8 * 256)), 0, 0).times(device)[
        "tensor"
    ]
    assert tensor == pytest.approx(1.98 / 1.755)


def test_no_kernel_of_the_stage_is_told():
    with pytest.raises(RuntimeError, match="no kernel of pooled convolutions for sm_70"):
        roofline.stage(True)(70)


def test_missing_disassembler_is_told(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(FileNotFoundError, match="no nvdisasm"):
        sass._disassembled(b"")
