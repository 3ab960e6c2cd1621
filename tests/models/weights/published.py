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
