"""All defences of the video paper on UT-Interaction, at equal cost, over five folds of sequences.

jaxmoe study configs/studies/ut_interaction.py --data.directory DIR --jobs 2

Every clip is a test clip once. All mixtures start from one clean mixture of a block, and AT-S, one
network of an expert's size, from one network that was trained as long. Each defence may then take
the same number of gradients, the ablations of J-TLAT too. J-TLAT, AT-M and AT-S are there with four
times as many as well, J-TLAT with two other λ, and AT-M of a mixture whose router neither scales
the logits nor learns from them. The judges are attacks that defences train on, and two that none of
them trains on: the enumerated route, and AutoAttack's first two with ten steps each.
"""

import dataclasses
import pathlib
import sys

from jaxmoe.config import Arm, Study, video_defences

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "video"))
from ut_interaction_standard import config


def study() -> Study:
    experiment = config()
    # Small clips, so that 115 runs fit a CPU; 90 of them or so are few, so they change more.
    data = dataclasses.replace(
        experiment.data,
        resolution=40,
        height=34,
        crop_scale=0.6,
        color_jitter=0.2,
        validation_fraction=0.06,
    )
    expert = dataclasses.replace(experiment.expert, stem_strides=(2, 2, 2))
    # Nobody chooses between epochs here, so nothing is judged or saved between them.
    run = dataclasses.replace(experiment.run, validate_every=0, checkpoint_every=1000)
    clean = dataclasses.replace(
        experiment.training, shared_epochs=72, dense_epochs=0, epochs=8, batch_size=8
    )
    arms = video_defences(
        experts=experiment.mixture.experts,
        clean_epochs=clean.shared_epochs + clean.epochs,
        # Copies of a trained network forget at the rate that it began with.
        standard={
            "training.shared_learning_rate": experiment.optimizer.learning_rate,
            "optimizer.learning_rate": 5e-4,
        },
        defence={
            "attack.steps": 3,
            "attack.alpha": 0.5,
            "attack.temporal_alpha": 1.0,
            "optimizer.learning_rate": 1e-3,
        },
        lam=1e-5,
    )
    # The clean mixture's L_Lip is 4e4: at λ = 1e-4 its quotient is more than the cross-entropy of
    # a guess, log 6. These λ are of the losses; attacks keep their own.
    for name, lam in (("more_lipschitz", "1e-4"), ("no_lipschitz", "0")):
        arm = arms["j_tlat"]
        fields = {**arm.fields, "recipe.lam": float(lam)}
        arms[name] = Arm(f"J-TLAT, λ = {lam}", fields, arm.start)
    arm = arms["at_m"]
    fields = {**arm.fields, "mixture.combine": "renormalized"}
    arms["renormalized"] = Arm("AT-M, renormalized", fields, arm.start)
    # Four times the cost: J-TLAT has the epochs that AT-M had before.
    for name, epochs in (("j_tlat", 17), ("at_m", 68), ("at_s", 68)):
        arm = arms[name]
        fields = {**arm.fields, "training.epochs": epochs}
        arms[f"{name}_longer"] = Arm(f"{arm.title}, 4 × as long", fields, arm.start, costs=False)
    return Study(
        experiment=dataclasses.replace(
            experiment, data=data, expert=expert, training=clean, run=run
        ),
        arms=arms,
        folds={
            f"fold{fold}": {"data.folds": 5, "data.fold": fold, "data.group_pattern": r"seq\d+"}
            for fold in range(5)
        },
        gradients=60,
        attacks=("pgd", "tla-m", "tlga-r", "j-tlga", "enumerated-route"),
        epsilons=(4 / 255,),
        evaluation={"steps": 10, "cascade": ("apgd-ce", "apgd-t"), "measures": "trust"},
        transfer=("pgd",),
        compared=("j_tlat", "j_tlat_longer", "at_m"),
        simplest="at_s",
    )
