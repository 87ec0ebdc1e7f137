"""Draws every figure of the gallery: ``python docs/gallery/draw.py [NAME ...]``."""

import runpy
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main(names):
    for path in sorted(HERE.glob("*.py")):
        if path.stem != "draw" and (not names or path.stem in names):
            start = time.process_time()
            print(f"{path.stem}:", flush=True)
            runpy.run_path(str(path), run_name="__main__")
            print(f"  {time.process_time() - start:.0f} s of one core", flush=True)


if __name__ == "__main__":
    chosen, sys.argv[1:] = sys.argv[1:], []  # scripts have words of their own
    main(chosen)
