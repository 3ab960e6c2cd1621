"""Published networks in PyTorch, with the names that their repositories give to tensors.

torchvision and PyTorchVideo define theirs. Those that no package has are written here after the
papers and the published names: the 3D ResNets of Hara et al. 2018, the temporal shift of Lin et
al. 2019 and the CIFAR ResNets of He et al. 2016 with option-A shortcuts.

[B, C, T, H, W] and [B, C, H, W].
"""

import torch
import torchvision
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """A residual block of one or two convolutions of width 3, or a bottleneck."""

    def __init__(self, inside, features, stride, rank, bottleneck, shortcut):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if rank == 2 else (nn.Conv3d, nn.BatchNorm3d)
        out = features * (4 if bottleneck else 1)
        self.bottleneck, self.shortcut, self.stride, self.out = bottleneck, shortcut, stride, out
        if bottleneck:
            self.conv1 = conv(inside, features, 1, bias=False)
            self.conv2 = conv(features, features, 3, stride, 1, bias=False)
            self.conv3 = conv(features, out, 1, bias=False)
            self.bn3 = norm(out)
        else:
            self.conv1 = conv(inside, features, 3, stride, 1, bias=False)
            self.conv2 = conv(features, features, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = norm(features), norm(features)
        self.changes = stride != 1 or inside != out
        if self.changes and shortcut == "projection":
            self.downsample = nn.Sequential(conv(inside, out, 1, stride, bias=False), norm(out))

    def forward(self, x):
        """The block's output."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(functional.relu(y)))
        return functional.relu(y + self._shortcut(x))

    def _shortcut(self, x):
        if not self.changes:
            return x
        if self.shortcut == "projection":
            return self.downsample(x)
        places = (slice(None), slice(None), *(slice(None, None, self.stride),) * (x.ndim - 2))
        new = self.out - x.shape[1]
        before = new // 2 if self.shortcut == "around" else 0
        return functional.pad(x[places], (0, 0) * (x.ndim - 2) + (before, new - before))


class ResNet(nn.Module):
    """Hara's networks of clips and CIFAR's of images."""

    def __init__(self, sizes, width, classes, *, rank, bottleneck=False, shortcut, head):
        super().__init__()
        self.rank, self.head = rank, head
        if rank == 3:
            self.conv1 = nn.Conv3d(3, width, 7, (1, 2, 2), 3, bias=False)
            self.bn1 = nn.BatchNorm3d(width)
        else:
            self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
        inside = width
        for stage, blocks in enumerate(sizes):
            layers = []
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Block(inside, width * 2**stage, stride, rank, bottleneck, shortcut))
                inside = layers[-1].out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(sizes)
        setattr(self, head, nn.Linear(inside, classes))

    def forward(self, x):
        """The logits."""
        x = functional.relu(self.bn1(self.conv1(x)))
        if self.rank == 3:
            x = functional.max_pool3d(x, 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head)(x.flatten(2).mean(2))


class Shift(nn.Module):
    """A convolution of frames, an eighth of whose channels comes from each neighbour in time."""

    def __init__(self, net, frames):
        super().__init__()
        self.net, self.frames = net, frames

    def forward(self, x):
        """Convolves `x`, [B · T, C, H, W]."""
        clips = x.view(-1, self.frames, *x.shape[1:])
        share = clips.shape[2] // 8
        shifted = torch.zeros_like(clips)
        shifted[:, :-1, :share] = clips[:, 1:, :share]
        shifted[:, 1:, share : 2 * share] = clips[:, :-1, share : 2 * share]
        shifted[:, :, 2 * share :] = clips[:, :, 2 * share :]
        return self.net(shifted.view_as(x))


class TSM(nn.Module):
    """A ResNet-50 of frames whose blocks shift; the mean of the frames' logits."""

    def __init__(self, classes, frames):
        super().__init__()
        self.frames = frames
        self.base_model = torchvision.models.resnet50()
        for stage in range(1, 5):
            for block in getattr(self.base_model, f"layer{stage}"):
                block.conv1 = Shift(block.conv1, frames)
        self.new_fc = nn.Linear(self.base_model.fc.in_features, classes)
        self.base_model.fc = nn.Identity()

    def forward(self, x):
        """The logits."""
        frames = x.transpose(1, 2).flatten(0, 1)
        logits = self.new_fc(self.base_model(frames))
        return logits.view(-1, self.frames, logits.shape[-1]).mean(1)
