"""``python -m npk.demo.train_one JOB``: train one network of the demo in a process of its own."""

import json
import sys
from pathlib import Path


def main(job: str) -> None:
    """Train the network that the job (JSON: data, seed, out, family, kind) names."""
    import torch

    from npk.demo import choose_samples
    from npk.demo.networks import Plan

    torch.set_num_threads(1)
    told = json.loads(job)
    Plan(
        choose_samples(told["data"], told["seed"]),
        Path(told["out"]),
        told["family"],
        told["kind"],
        told["seed"],
    ).train()


if __name__ == "__main__":
    main(sys.argv[1])
