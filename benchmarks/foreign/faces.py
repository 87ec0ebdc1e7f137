"""A convnet with PReLUs that tells faces from other things, from the package facenet-pytorch, and
the pictures lfw_subset of scikit-image.

The network is the second of the three of MTCNN (RNet). The class below is that of the package,
without the loading of weights: a state dict needs its class, and importing the package needs
versions of PyTorch that are older than ours.

python faces.py --out run
"""

import numpy as np
import torch
from installed import Samples, file_of, folder_asked, write
from torch import nn


class RNet(nn.Module):
    """Pictures of 24 x 24 pixels to corrections of a box, and the probabilities of no face and
    face.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, kernel_size=3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, kernel_size=3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, kernel_size=2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.softmax5_1 = nn.Softmax(dim=1)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As in the package, its axes in its order."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = x.permute(0, 3, 2, 1).contiguous()
        x = self.prelu4(self.dense4(x.view(x.shape[0], -1)))
        return self.dense5_2(x), self.softmax5_1(self.dense5_1(x))


def main() -> None:
    """Read, ask the network, write."""
    out = folder_asked(__doc__)
    checkpoint = file_of("facenet_pytorch", "data/rnet.pt")
    net = RNet().eval()
    net.load_state_dict(torch.load(checkpoint, weights_only=True))
    order = np.random.default_rng(0).permutation(100)
    # of each class: the first hundred are faces
    train, test = (np.r_[half, half + 100] for half in (order[:50], order[50:]))
    parts = {
        "faces-train": samples(train),
        "faces-test": samples(test),
        "faces-coarse": samples(test, side=12),
    }
    with torch.inference_mode():
        write(
            out,
            checkpoint,
            parts,
            ["no face", "face"],
            lambda X: net(torch.from_numpy(X))[1].argmax(1).numpy(),
        )


def samples(chosen: np.ndarray, side: int = 24) -> Samples:
    """Some of 100 faces and 100 cuttings without a face, gray, of ``side`` x ``side`` pixels
    enlarged to 24 x 24, as the package scales.
    """
    pictures = torch.from_numpy(np.load(file_of("skimage", "data/lfw_subset.npy"))[chosen]).float()[
        :, None
    ]
    small = nn.functional.interpolate(pictures, (side, side), mode="area")
    large = nn.functional.interpolate(small, (24, 24), mode="bilinear").expand(-1, 3, -1, -1)
    return ((large * 255 - 127.5) / 128).contiguous().numpy(), (chosen < 100).astype(int)


if __name__ == "__main__":
    main()
