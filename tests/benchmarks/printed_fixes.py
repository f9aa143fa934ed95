"""How many printed fixes do not do what the report says: ``python tests/benchmarks/printed_fixes.py [FIXES] [SEED]``.

Draws problems over options, dtypes, layouts, reductions and kinds of targets until that many fixes were printed,
and runs the text of each on the whole tensor and on the failing rows with two healthy ones.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))
from printed import draw, printed, wrong


def main(most: int, seed: int) -> None:
    """Prints a line for each false fix, and the counts."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    random, seen, began = np.random.default_rng(seed), Counter[str](), time.perf_counter()
    while seen["fixes"] < most:
        for one in printed(draw(random)):
            found = wrong(one)
            seen.update(["fixes", "working" if one.remedy.works else "failing"])
            if found:
                seen["false"] += 1
                print(f"{found}: {one}\n")
    print(f"seed {seed}, {time.perf_counter() - began:.0f} s: {seen['fixes']:,} fixes printed, ", end="")
    print(f"{seen['working']:,} as working, {seen['failing']:,} as failing, {seen['false']:,} false")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [10_000, 0][len(given) :]))
