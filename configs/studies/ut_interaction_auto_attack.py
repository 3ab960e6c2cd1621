"""AT-S, AT-M and J-TLAT of `ut_interaction.py`, and their starts, under the whole AutoAttack too.

Each is attacked with what breaks the others as well, and with their starts'.

jaxmoe study configs/studies/ut_interaction_auto_attack.py --data.directory DIR --jobs 2 \\
    --runs runs/ut_interaction

In the folder of `ut_interaction.py` it judges what was trained there, and writes its tables over
those of all arms, which `ut_interaction.py` run again brings back; elsewhere it trains first.
AutoAttack is APGD and APGD toward targets with 100 steps, FAB toward targets, and Square with 5000
looks, each on the clips that stand.
"""

import dataclasses
import pathlib
import sys

from jaxmoe.config import Study

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import ut_interaction

ARMS = ("at_s", "at_m", "j_tlat")


def study() -> Study:
    whole = ut_interaction.study()
    needed = {*ARMS, *(whole.arms[name].start for name in ARMS)}
    arms = {name: arm for name, arm in whole.arms.items() if name in needed}
    return dataclasses.replace(
        whole,
        arms=arms,
        attacks=(*whole.attacks, "auto-attack"),
        compared=ARMS[1:],
    )
