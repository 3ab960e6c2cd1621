"""The words that fields accept, in one place that needs no JAX."""

from typing import Literal, get_args

Norm = Literal["linf", "l2"]
NORMS: tuple[str, ...] = get_args(Norm)

# The cue by which a rendered clip tells its domain: `data.rendered.domains`.
DomainCue = Literal["tint", "stripes"]
DOMAIN_CUES: tuple[str, ...] = get_args(DomainCue)

# How a mixture weights its experts, and what keeps them busy: `mixture.routing`.
Combine = Literal["softmax", "renormalized", "none"]
COMBINES: tuple[str, ...] = get_args(Combine)
Balance = Literal["switch", "importance", "load", "v-moe"]
BALANCES: tuple[str, ...] = get_args(Balance)

# The gradient of a mixture that an attack sees: `mixture.gradient_modes`.
GradientMode = Literal["hard", "soft", "straight_through"]
GRADIENT_MODES: tuple[str, ...] = get_args(GradientMode)

# Of temporal momentum: `attacks.updates`.
Axis = Literal["iterations", "frames"]
AXES: tuple[str, ...] = get_args(Axis)
Direction = Literal["shorten", "boost"]
DIRECTIONS: tuple[str, ...] = get_args(Direction)

# The iterate that an attack by gradients returns: `attacks.perturb`.
Iterate = Literal["best", "last"]
ITERATES: tuple[str, ...] = get_args(Iterate)

# Outputs that the router's Lipschitz quotient compares: `attacks.objectives`.
RouterOutput = Literal["weights", "logits"]
ROUTER_OUTPUTS: tuple[str, ...] = get_args(RouterOutput)

# What end-to-end adversarial training minimises: `training.recipes.adversarial`.
AdversarialLoss = Literal["ce", "half", "trades", "lipschitz"]
ADVERSARIAL_LOSSES: tuple[str, ...] = get_args(AdversarialLoss)

# How a step is mapped over devices: `parallel.mapping`.
DeviceMapping = Literal["mesh", "pmap"]
DEVICE_MAPPINGS: tuple[str, ...] = get_args(DeviceMapping)

DIVERGENCE = "divergence"  # an inner attack that no evaluation has: it needs no label
