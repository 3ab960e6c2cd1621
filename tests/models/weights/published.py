"""Published networks written out in NumPy, channels first, with their repositories' names.

A network asks for its tensors by name while it runs, and the first run draws them. Nothing of
jaxmoe is used. [B, C, *S].
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf


class Net:
    """The tensors of one network by PyTorch's names, drawn when they are first asked for."""

    def __init__(self):
        self.random = np.random.default_rng(0)
        self.tensors: dict[str, np.ndarray] = {}

    def get(self, name, shape, low=None, high=None):
        """A tensor: uniform if bounds are given, else normal by its fan-in."""
        if name not in self.tensors:
            if low is None:
                value = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
            else:
                value = self.random.uniform(low, high, shape)
            self.tensors[name] = value.astype(np.float32)
        return self.tensors[name].astype(np.float64)

    def conv(self, name, x, out, window, stride=1, pad=0, dilation=1, *, bias=False):
        """A convolution; numbers that are no tuple are of every axis."""
        rank = x.ndim - 2
        window, stride, pad = (_each(value, rank) for value in (window, stride, pad))
        kernel = self.get(f"{name}.weight", (out, x.shape[1], *window))
        x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in pad)))
        wide = [dilation * (size - 1) + 1 for size in window]
        axes = tuple(range(2, x.ndim))
        x = sliding_window_view(x, wide, axes)
        places = tuple(slice(None, None, step) for step in stride)
        x = x[(slice(None), slice(None), *places, *(slice(None, None, dilation),) * rank)]
        own = tuple(range(-rank, 0))
        y = np.tensordot(x, kernel, axes=((1, *own), (1, *range(2, kernel.ndim))))
        y = np.moveaxis(y, -1, 1)
        if bias:
            y += self.get(f"{name}.bias", (out,), -0.5, 0.5).reshape(-1, *(1,) * rank)
        return y

    def norm(self, name, x, *, relu=False):
        """Batch normalisation in inference mode."""
        shape = (x.shape[1],)
        self.tensors.setdefault(f"{name}.num_batches_tracked", np.array(3))
        scale, bias = (
            self.get(f"{name}.weight", shape, 0.5, 1.5),
            self.get(f"{name}.bias", shape, -0.5, 0.5),
        )
        mean, var = (
            self.get(f"{name}.running_mean", shape, -0.5, 0.5),
            self.get(f"{name}.running_var", shape, 0.5, 1.5),
        )
        scale = scale / np.sqrt(var + 1e-5)
        axes = (-1, *(1,) * (x.ndim - 2))
        y = (x - mean.reshape(axes)) * scale.reshape(axes) + bias.reshape(axes)
        return np.maximum(y, 0) if relu else y

    def linear(self, name, x, out):
        """A linear layer of the last axis."""
        weight = self.get(f"{name}.weight", (out, x.shape[-1]))
        return x @ weight.T + self.get(f"{name}.bias", (out,), -0.5, 0.5)

    def layer_norm(self, name, x):
        """Layer normalisation of the last axis."""
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        shape = x.shape[-1:]
        return x * self.get(f"{name}.weight", shape, 0.5, 1.5) + self.get(
            f"{name}.bias", shape, -0.5, 0.5
        )


def _each(value, rank):
    return tuple(value) if isinstance(value, tuple) else (value,) * rank


def max_pool(x, window, stride, pad):
    """A maximum over windows."""
    rank = x.ndim - 2
    window, stride, pad = (_each(value, rank) for value in (window, stride, pad))
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in pad)), constant_values=-np.inf)
    x = sliding_window_view(x, window, tuple(range(2, x.ndim)))
    x = x[(slice(None), slice(None), *(slice(None, None, step) for step in stride))]
    return x.max(tuple(range(-rank, 0)))


def mean(x):
    """The mean over positions, [B, C]."""
    return x.reshape(*x.shape[:2], -1).mean(-1)


def zero_padded(x, out, stride, *, around):
    """The shortcut without params: zeros for new channels."""
    x = x[(slice(None), slice(None), *(slice(None, None, stride),) * (x.ndim - 2))]
    new = out - x.shape[1]
    before = new // 2 if around else 0
    return np.pad(x, ((0, 0), (before, new - before), *((0, 0),) * (x.ndim - 2)))


def block(net, name, x, features, stride, *, bottleneck=False, shortcut="downsample", dilation=1):
    """A residual block; `shortcut` is the name of its projection, "around" or "behind"."""
    out = features * (4 if bottleneck else 1)
    if bottleneck:
        y = net.norm(f"{name}.bn1", net.conv(f"{name}.conv1", x, features, 1), relu=True)
        y = net.conv(f"{name}.conv2", y, features, 3, stride, dilation, dilation)
        y = net.norm(f"{name}.bn2", y, relu=True)
        y = net.norm(f"{name}.bn3", net.conv(f"{name}.conv3", y, out, 1))
    else:
        y = net.conv(f"{name}.conv1", x, features, 3, stride, 1)
        y = net.norm(f"{name}.bn1", y, relu=True)
        y = net.norm(f"{name}.bn2", net.conv(f"{name}.conv2", y, out, 3, 1, 1))
    if stride != 1 or x.shape[1] != out:
        if shortcut in ("around", "behind"):
            x = zero_padded(x, out, stride, around=shortcut == "around")
        else:
            x = net.norm(
                f"{name}.{shortcut}.1", net.conv(f"{name}.{shortcut}.0", x, out, 1, stride)
            )
    return np.maximum(x + y, 0)


def resnet(net, x, width, classes, stages=(1, 1), head="fc", small=False, **fields):
    """Networks of torchvision and CIFAR's of images, and Hara's of clips."""
    if small:
        x = net.conv("conv1", x, width, 3, 1, 1)
    else:
        x = net.conv("conv1", x, width, 7, (1, 2, 2)[5 - x.ndim :], 3)
    x = net.norm("bn1", x, relu=True)
    x = x if small else max_pool(x, 3, 2, 1)
    for stage, blocks in enumerate(stages):
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            x = block(net, f"layer{stage + 1}.{number}", x, width * 2**stage, stride, **fields)
    return net.linear(head, mean(x), classes)


def torchvision_video(net, x, width, classes, stages=(1, 1), kind="r3d"):
    """r3d_18, mc3_18 and r2plus1d_18."""

    def conv(name, x, out, window, stride, pad, inner):
        if kind != "r2plus1d":
            flat = kind == "mc3" and not name.startswith(("stem", "layer1"))
            if flat:
                window, stride, pad = (1, *window[1:]), (1, *stride[1:]), (0, *pad[1:])
            return net.conv(f"{name}.0", x, out, window, stride, pad)
        x = net.conv(f"{name}.0", x, inner, (1, *window[1:]), (1, *stride[1:]), (0, *pad[1:]))
        x = net.norm(f"{name}.1", x, relu=True)
        time = (window[0], 1, 1), (stride[0], 1, 1), (pad[0], 0, 0)
        return net.conv(f"{name}.3", x, out, *time)

    def block_conv(name, x, out, stride, inner):
        place = f"{name}.0" if kind == "r2plus1d" else name
        y = conv(place, x, out, (3, 3, 3), (stride,) * 3, (1, 1, 1), inner)
        return net.norm(f"{name}.1", y)

    x = conv("stem", x, width, (3, 7, 7), (1, 2, 2), (1, 3, 3), round(width * 45 / 64))
    x = net.norm("stem.4" if kind == "r2plus1d" else "stem.1", x, relu=True)
    for stage, blocks in enumerate(stages):
        for number in range(blocks):
            name, out = f"layer{stage + 1}.{number}", width * 2**stage
            stride = 2 if stage and not number else 1
            inner = x.shape[1] * out * 27 // (x.shape[1] * 9 + 3 * out)
            y = np.maximum(block_conv(f"{name}.conv1", x, out, stride, inner), 0)
            y = block_conv(f"{name}.conv2", y, out, 1, inner)
            if stride != 1:
                steps = (1, 2, 2) if kind == "mc3" else 2
                x = net.conv(f"{name}.downsample.0", x, out, 1, steps)
                x = net.norm(f"{name}.downsample.1", x)
            x = np.maximum(x + y, 0)
    return net.linear("fc", mean(x), classes)


def tsm(net, x, width, classes, stages=(1, 1)):
    """TSM on bottlenecks: the first convolution of a block sees shifted channels."""
    clips, frames = x.shape[0], x.shape[2]

    def shift(x):
        x = x.reshape(clips, frames, *x.shape[1:])
        share, y = x.shape[2] // 8, np.zeros_like(x)
        y[:, :-1, :share] = x[:, 1:, :share]
        y[:, 1:, share : 2 * share] = x[:, :-1, share : 2 * share]
        y[:, :, 2 * share :] = x[:, :, 2 * share :]
        return y.reshape(-1, *x.shape[2:])

    x = np.moveaxis(x, 2, 1).reshape(-1, x.shape[1], *x.shape[3:])
    x = net.norm("base_model.bn1", net.conv("base_model.conv1", x, width, 7, 2, 3), relu=True)
    x = max_pool(x, 3, 2, 1)
    for stage, blocks in enumerate(stages):
        for number in range(blocks):
            name = f"base_model.layer{stage + 1}.{number}"
            features, stride = width * 2**stage, 2 if stage and not number else 1
            y = net.conv(f"{name}.conv1.net", shift(x), features, 1)
            y = net.norm(f"{name}.bn1", y, relu=True)
            y = net.conv(f"{name}.conv2", y, features, 3, stride, 1)
            y = net.norm(f"{name}.bn2", y, relu=True)
            y = net.norm(f"{name}.bn3", net.conv(f"{name}.conv3", y, 4 * features, 1))
            if not number:
                x = net.conv(f"{name}.downsample.0", x, 4 * features, 1, stride)
                x = net.norm(f"{name}.downsample.1", x)
            x = np.maximum(x + y, 0)
    return net.linear("new_fc", mean(x), classes).reshape(clips, frames, classes).mean(1)


def vit(net, x, width, classes, patch=4, depth=2, heads=1, mlp=("0", "3")):
    """torchvision's vision transformer."""
    x = net.conv("conv_proj", x, width, patch, patch, bias=True)
    x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2)
    token = net.get("class_token", (1, 1, width))
    x = np.concatenate([np.broadcast_to(token, (len(x), 1, width)), x], 1)
    x = x + net.get("encoder.pos_embedding", (1, *x.shape[1:]))
    for number in range(depth):
        name = f"encoder.layers.encoder_layer_{number}"
        y, attention = net.layer_norm(f"{name}.ln_1", x), f"{name}.self_attention"
        weight = net.get(f"{attention}.in_proj_weight", (3 * width, width))
        y = y @ weight.T + net.get(f"{attention}.in_proj_bias", (3 * width,), -0.5, 0.5)
        q, k, v = (
            part.reshape(*part.shape[:2], heads, -1).swapaxes(1, 2)
            for part in np.split(y, 3, axis=-1)
        )
        scores = q @ k.swapaxes(2, 3) / np.sqrt(width / heads)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        y = (scores / scores.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(*x.shape)
        x = x + net.linear(f"{attention}.out_proj", y, width)
        y = net.linear(f"{name}.mlp.{mlp[0]}", net.layer_norm(f"{name}.ln_2", x), 4 * width)
        y = y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + net.linear(f"{name}.mlp.{mlp[1]}", y, width)
    return net.linear("heads.head", net.layer_norm("encoder.ln", x)[:, 0], classes)


AUTHORS = {
    "stem": ("s1.pathway{0}_stem.conv", "s1.pathway{0}_stem.bn"),
    "fuse": ("s{1}_fuse.conv_f2s", "s{1}_fuse.bn"),
    "block": "s{2}.pathway{0}_res{3}",
    "branch1": ("branch1", "branch1_bn"),
    "branch2": ("branch2.{0}", "branch2.{0}_bn"),
    "head": "head.projection",
}
PYTORCHVIDEO = {
    "stem": ("blocks.0.multipathway_blocks.{0}.conv", "blocks.0.multipathway_blocks.{0}.norm"),
    "fuse": (
        "blocks.{0}.multipathway_fusion.conv_fast_to_slow",
        "blocks.{0}.multipathway_fusion.norm",
    ),
    "block": "blocks.{1}.multipathway_blocks.{0}.res_blocks.{3}",
    "branch1": ("branch1_conv", "branch1_norm"),
    "branch2": ("branch2.conv_{0}", "branch2.norm_{0}"),
    "head": "blocks.6.proj",
}


def slowfast(net, x, width, classes, stages=(1, 1, 1), names=AUTHORS):
    """SlowFast 8 × 8: every fourth frame in `width` channels, all of them in an eighth of it."""

    def layer(pair, *numbers, x, out, window, stride=1, pad=0, relu=True):
        conv, norm = (name.format(*numbers) for name in pair)
        return net.norm(norm, net.conv(conv, x, out, window, stride, pad), relu=relu)

    def residual(name, x, features, stride, time):
        def branch(letter, x, **fields):
            pair = [f"{name}.{each}" for each in names["branch2"]]
            out = features * (4 if letter == "c" else 1)
            return layer(pair, letter, x=x, out=out, **fields)

        y = branch("a", x, window=(time, 1, 1), pad=(time // 2, 0, 0))
        y = branch("b", y, window=(1, 3, 3), stride=(1, stride, stride), pad=(0, 1, 1))
        y = branch("c", y, window=1, relu=False)
        if stride != 1 or x.shape[1] != 4 * features:
            pair = [f"{name}.{each}" for each in names["branch1"]]
            steps = (1, stride, stride)
            x = layer(pair, x=x, out=4 * features, window=1, stride=steps, relu=False)
        return np.maximum(x + y, 0)

    widths, paths = (width, width // 8), [x[:, :, ::4], x]
    for number, (time, own) in enumerate(zip((1, 5), widths, strict=True)):
        window, pad = (time, 7, 7), (time // 2, 3, 3)
        y = layer(
            names["stem"],
            number,
            x=paths[number],
            out=own,
            window=window,
            stride=(1, 2, 2),
            pad=pad,
        )
        paths[number] = max_pool(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    for stage, blocks in enumerate(stages):
        fast = paths[1]
        lateral = layer(
            names["fuse"],
            stage,
            stage + 1,
            x=fast,
            out=2 * fast.shape[1],
            window=(7, 1, 1),
            stride=(4, 1, 1),
            pad=(3, 0, 0),
        )
        paths[0] = np.concatenate([paths[0], lateral], 1)
        for number, own in enumerate(widths):
            time = 1 if number == 0 and stage < len(stages) - 2 else 3
            for block in range(blocks):
                name = names["block"].format(number, stage + 1, stage + 2, block)
                stride = 2 if stage and not block else 1
                paths[number] = residual(name, paths[number], own * 2**stage, stride, time)
    return net.linear(names["head"], np.concatenate([mean(y) for y in paths], 1), classes)


def deeplab(net, x, width, classes, stages=(1, 1, 1, 2)):
    """torchvision's deeplabv3_resnet50, with its second head's tensors."""
    sizes = x.shape[2:]
    x = net.norm("backbone.bn1", net.conv("backbone.conv1", x, width, 7, 2, 3), relu=True)
    x = max_pool(x, 3, 2, 1)
    for stage, blocks in enumerate(stages):
        for number in range(blocks):
            stride = 2 if stage == 1 and not number else 1
            # The first block of a stage is dilated as the stage before.
            dilation = {2: 1 if not number else 2, 3: 2 if not number else 4}.get(stage, 1)
            name = f"backbone.layer{stage + 1}.{number}"
            fields = {"bottleneck": True, "dilation": dilation}
            x = block(net, name, x, width * 2**stage, stride, **fields)
    branches = []
    for number, rate in enumerate((0, 12, 24, 36)):
        name = f"classifier.0.convs.{number}"
        y = net.conv(f"{name}.0", x, 16, 3 if rate else 1, 1, rate, max(rate, 1))
        branches.append(net.norm(f"{name}.1", y, relu=True))
    y = net.conv("classifier.0.convs.4.1", x.mean((2, 3), keepdims=True), 16, 1)
    y = net.norm("classifier.0.convs.4.2", y, relu=True)
    branches.append(np.broadcast_to(y, branches[0].shape))
    y = net.conv("classifier.0.project.0", np.concatenate(branches, 1), 16, 1)
    y = net.norm("classifier.0.project.1", y, relu=True)
    y = net.norm("classifier.2", net.conv("classifier.1", y, 16, 3, 1, 1), relu=True)
    net.get("aux_classifier.0.weight", (4, x.shape[1], 3, 3))
    y = net.conv("classifier.4", y, classes, 1, bias=True)
    for axis, size in zip((2, 3), sizes, strict=True):
        y = interpolated(y, axis, size)
    return np.moveaxis(y, 1, -1)


def interpolated(x, axis, size):
    """Linear interpolation along an axis, corners not aligned."""
    old = x.shape[axis]
    places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.floor(places).astype(int)
    high, share = np.minimum(low + 1, old - 1), places - low
    shape = [1] * x.ndim
    shape[axis] = size
    share = share.reshape(shape)
    return x.take(low, axis) * (1 - share) + x.take(high, axis) * share
