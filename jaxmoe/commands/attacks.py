"""`jaxmoe attacks`: what there is to attack with."""

from jaxmoe.commands.arguments import Parser

_DESCRIPTION = """Lists the attacks that `evaluate`, `sweep` and `transfer` take by name, and what
each maximises; cascades are for `evaluate` alone. F is the mixture, r its router, E_j its expert j,
CE the cross-entropy, L_Lip a Lipschitz quotient. Each attack is scored by the whole model, whatever
part it attacks. `transfer` knows `universal` and `universal-class` too."""

PARTS = {
    "model": "the whole",
    "router": "the router",
    "experts": "the experts",
    "joint": "router and experts at once",
}
TASKS = ("video", "image", "segmentation")


def run(arguments: list[str]) -> None:
    """Prints the list.

    Raises:
      ValueError: bad input, one line.
    """
    parser = Parser("attacks", _DESCRIPTION)
    parser.add_argument("--part", choices=tuple(PARTS), help="only those on this part (all)")
    parser.add_argument("--task", choices=TASKS, help="only those for this kind of data (all)")
    options = parser.parse(arguments)
    print("\n".join(listed(options.part, options.task)))


def listed(part: str | None = None, task: str | None = None) -> list[str]:
    """Returns the lines of the list, attacks by part, then the cascades."""
    from jaxmoe.attacks import ATTACKS, CASCADES, find_attack

    for name in ATTACKS:
        find_attack(name)  # says what is wrong with one of one's own

    width = max(map(len, (*ATTACKS, *CASCADES)))
    lines = []
    for component, title in PARTS.items():
        found = {
            name: named
            for name, named in ATTACKS.items()
            if named.component == component and _is_for(named, task)
        }
        if found and part in (None, component):
            lines += ["", f"on {title}"]
            lines += [f"  {name:<{width}}  {named.maximises}" for name, named in found.items()]
    if part in (None, "model") and task != "segmentation":
        lines += ["", "cascades, each attack on what the ones before it left"]
        for name, cascade in CASCADES.items():
            stages = ", ".join(stage.attack for stage in cascade.stages)
            lines.append(f"  {name:<{width}}  {stages}")
    return lines[1:]


def _is_for(named, task: str | None) -> bool:
    if named.temporal:
        return task in (None, "video")
    return not (named.one_label and task == "segmentation")
