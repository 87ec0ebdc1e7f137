"""Programs that were exported for one batch size, as torch.export does by default."""

import numpy as np
import pytest
import torch
from torch import nn

import npk
from npk import cli
from npk.checkpoint.program import batches
from npk.errors import CheckpointError


class Conv(nn.Module):
    """Shapes with the batch in them, and one of a parameter that begins with 1."""

    def __init__(self):
        super().__init__()
        self.conv, self.bias, self.last = (
            nn.Conv2d(2, 3, 3),
            nn.Parameter(torch.ones(3)),
            nn.Linear(48, 3),
        )

    def forward(self, x):
        h = torch.relu(self.conv(x) + self.bias.view(1, -1, 1, 1))
        h = h.reshape(x.shape[0], 3, 16).expand(x.shape[0], -1, -1)
        return self.last(h.view(x.size(0), -1))


class Between(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class Flat(nn.Module):
    def forward(self, x):
        return x.reshape(-1)


class Beside(nn.Module):
    def forward(self, x):
        return torch.cat([x, torch.zeros(x.shape[0], 2)], 1)


def exported(folder, net, *shape):
    path = folder / "x.pt2"
    with torch.random.fork_rng(devices=[]):
        torch.export.save(torch.export.export(net.eval(), (torch.zeros(shape),)), path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [1, 4])
def test_a_program_for_one_batch_size_takes_every(tmp_path, rng, batch):
    net = Conv()
    loaded = npk.load(exported(tmp_path, net, batch, 2, 6, 6))
    assert loaded.input_shape == (2, 6, 6)
    for n in (1, 4, 5):
        x = torch.from_numpy(rng.random((n, 2, 6, 6), dtype=np.float32))
        torch.testing.assert_close(loaded(x), net(x), rtol=1e-6, atol=1e-6)
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    X = rng.random((5, 4), dtype=np.float32)
    found = npk.kernel(npk.load(exported(tmp_path, plain, batch, 4)), X, backend="reference")
    np.testing.assert_allclose(found, npk.kernel(plain, X, backend="reference"), rtol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("net", "why"),
    [
        (Between(), "samples change one another's outputs"),
        (Flat(), "an output has shape"),
        (Beside(), "RuntimeError: Sizes of tensors must match"),
    ],
)
def test_a_program_that_needs_its_batch_size_is_refused(tmp_path, net, why, batch):
    message = (
        rf"exported for batch size {batch}: export with "
        rf"dynamic_shapes=\(\{{0: Dim\.DYNAMIC\}},\)\. It is another .*({why})"
    )
    with pytest.raises(CheckpointError, match=message):
        npk.load(exported(tmp_path, net, batch, 3))


@pytest.mark.filterwarnings("ignore")
def test_a_program_too_large_to_try_is_refused_before(tmp_path, monkeypatch):
    path = exported(tmp_path, nn.Sequential(nn.Linear(4, 1000), nn.ReLU()), 1, 4)
    monkeypatch.setattr(batches, "MOST_CELLS", 5000)
    with pytest.raises(
        CheckpointError,
        match=r"its values for 3 samples have more than 5,000 "
        r"cells",
    ):
        npk.load(path)
    monkeypatch.setattr(batches, "MOST_CELLS", 10)
    with pytest.raises(CheckpointError, match="3 samples of it have more than 10 cells"):
        npk.load(path)


@pytest.mark.filterwarnings("ignore")
def test_inspect_knows_the_shape_of_a_program(tmp_path, capsys):
    path = exported(tmp_path, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), 1, 4)
    assert cli.run(["inspect", str(path)]) == 0, capsys.readouterr().err
