"""A network of your own: ResNet-20 for small pictures, trained on normalized digits.

``python resnet20.py`` trains it and writes resnet20.pt and fresh.npz, raw pixels.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F

MEAN, STD = 4.9, 6.0  # of the pixels of load_digits, which go from 0 to 16


class Block(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.down = None
        if stride > 1 or channels != width:
            self.down = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x):
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(h + (x if self.down is None else self.down(x)))


def resnet20(width=8, classes=10):
    """19 convolutions and a linear layer."""
    blocks, channels = [], width
    for stage in range(3):
        for block in range(3):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(Block(channels, width * 2**stage, stride))
            channels = width * 2**stage
    stem = nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    return nn.Sequential(*stem, *blocks, *head)


def train(net, X, y, epochs=12):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(X) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


if __name__ == "__main__":
    pixels, y = load_digits(return_X_y=True)
    pixels = pixels.reshape(-1, 1, 8, 8).astype(np.float32)
    parts = train_test_split(pixels, y, test_size=0.4, stratify=y, random_state=0)
    X_train, X_fresh, y_train, y_fresh = parts
    torch.manual_seed(0)
    net = train(resnet20(), torch.tensor((X_train - MEAN) / STD), torch.tensor(y_train))
    with torch.no_grad():
        right = net(torch.tensor((X_fresh - MEAN) / STD)).argmax(1).numpy() == y_fresh
    print(f"resnet20: {right.mean():.1%} of {len(right)} fresh digits right")
    torch.save(net.state_dict(), "resnet20.pt")
    np.savez("fresh.npz", X=X_fresh, y=y_fresh)
