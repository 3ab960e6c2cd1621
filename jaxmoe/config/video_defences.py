"""The arms of a study: the video paper's defences, and simpler explanations beside them."""

from jaxmoe.config.study import Arm, Fields

_ONE = {"mixture.experts": 1}
# J-TLAT needs the larger one; what it owes to it shows beside AT-M with the same.
_BALANCE, _LARGER = 0.5, 1.5
_REPAIRS = ("router", "weak_experts", "global")


def video_defences(
    *,
    experts: int,
    clean_epochs: int,
    standard: Fields | None = None,
    defence: Fields | None = None,
    lam: float | None = None,
) -> dict[str, Arm]:
    """Returns every defence of arXiv 2602.01369 by name, each from a clean start of its kind.

    All mixtures start from one clean mixture, but OUD-M's, whose networks have a restoration block.
    Beside them stand AT-S, one network of an expert's size that was trained as long; AT-M with
    J-TLAT's balance loss, and with expert dropout; and J-TLAT without each of its phases.

    Args:
      experts: M of the study's experiment.
      clean_epochs: of the one network, so that it has as many gradients as the clean mixture.
      standard: fields of the clean mixtures alone.
      defence: fields of every defence, of its attack, say.
      lam: λ of the Lipschitz quotients that TLAT and J-TLAT minimise; None is the recipe's own.
    """
    alone = {
        **_ONE,
        "training.shared_epochs": 0,
        "training.dense_epochs": 0,
        "training.specialize_epochs": 0,
        "training.epochs": clean_epochs,
    }
    clean = standard or {}
    quotients = {} if lam is None else {"recipe__lam": lam}
    restored = {**clean, "expert.restoration": True}
    arms = {
        "standard": Arm("standard", clean, costs=False),
        "single": Arm("one network", alone, costs=False),
        "restored": Arm("standard, restored", restored, costs=False),
    }

    def add(name: str, title: str, recipe: str, start: str = "standard", **fields: object) -> None:
        own = {"mixture.balance_weight": _BALANCE}
        own |= {key.replace("__", "."): value for key, value in fields.items()}
        arms[name] = Arm(title, {"recipe": recipe, **(defence or {}), **own}, start)

    add("at_s", "AT-S", "at_s", "single", mixture__experts=1)
    add("at_d", "AT-D", "at_d", mixture__top_k=experts)
    add("at_m", "AT-M", "at_m")
    add("oud_m", "OUD-M", "oud_m", "restored", expert__restoration=True)
    add("aat_m", "AAT-M", "aat_m")
    add("adv_moe", "AdvMoE", "adv_moe")
    add("trades", "TRADES", "trades")
    add("balanced", "AT-M, balanced", "at_m", mixture__balance_weight=_LARGER)
    add("dropout", "AT-M, expert dropout", "at_m", mixture__dropped_experts=1)
    add("tlat", "TLAT", "tlat", **quotients)
    whole = {"mixture__balance_weight": _LARGER, **quotients}
    add("j_tlat", "J-TLAT", "j_tlat", **whole)
    for left_out in _REPAIRS:
        repairs = tuple(each for each in _REPAIRS if each != left_out)
        title = f"J-TLAT without {left_out.replace('_', ' ')}"
        add(f"without_{left_out}", title, "j_tlat", recipe__repairs=repairs, **whole)
    return arms
