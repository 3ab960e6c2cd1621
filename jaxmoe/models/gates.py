"""Gates: routers that read the features of all experts, for mixtures of segmentation networks.

Axes: B = batch, h w = of the features, F = channels of all experts' features together, M = experts,
K = classes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jaxmoe.models.conv import Conv


class SimpleGate(nn.Module):
    """One weight for each expert, for the whole image.

    A convolution of width 3 to one channel, a hidden layer on all positions, a logit per expert:
    "Towards Adversarial Robustness of Model-Level Mixture-of-Experts Architectures for Semantic
    Segmentation", 2024, https://arxiv.org/abs/2412.11608.

    Attributes:
      num_experts: M.
      hidden: units of the hidden layer; 128 in the paper.
    """

    num_experts: int
    hidden: int = 128

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch h w channels"]
    ) -> Float[Array, "batch experts"]:
        """Gate logits in float32; their softmax weights the experts."""
        x = features.astype(jnp.float32)
        x = jax.nn.relu(Conv(1, (3, 3), use_bias=True, name="conv")(x))
        x = nn.Dense(self.hidden, name="hidden_layer")(x.reshape(x.shape[0], -1))
        return nn.Dense(self.num_experts, name="head")(jax.nn.relu(x))


class ClasswiseGate(nn.Module):
    """One weight for each expert and class: a `SimpleGate` of its own for every class.

    Attributes:
      num_experts: M.
      num_classes: K.
      hidden: units of each hidden layer.
    """

    num_experts: int
    num_classes: int
    hidden: int = 128

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch h w channels"]
    ) -> Float[Array, "batch classes experts"]:
        """Gate logits in float32; their softmax over experts weights each class's logits."""
        gates = nn.vmap(
            SimpleGate,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=1,
            axis_size=self.num_classes,
        )
        return gates(self.num_experts, self.hidden, name="gates")(features)
