"""`jaxmoe quickstart`: the whole of the library in minutes."""

from jaxmoe.commands import report
from jaxmoe.commands.arguments import Parser, Stopped

_DESCRIPTION = """Trains small mixtures of experts on clips, images or scenes that are rendered on
the spot, attacks them and prints one table. Needs no data and no accelerator; about five minutes on
two CPU cores.

video: a mixture of four experts, one for each of four domains, and J-TLAT, attacked as a whole
  (PGD), at the router (TLGA-R) and at both (J-TLGA).
image: such a mixture of images, AT-M and RT-ER, attacked as a whole (PGD), at the router (PGD-R)
  and at experts (PGD-E).
segmentation: two experts of two domains of scenes, and a gate that weights them, under PGD.

Beside each stands one network of an expert's size, trained at equal cost, clean and with PGD
(AT-S). A sentence says how much each mixture's router decides."""

TASKS = ("video", "image", "segmentation")


def run(arguments: list[str]) -> None:
    """Runs the quickstart.

    Raises:
      ValueError: bad input, one line.
      Stopped: Ctrl-C.
    """
    parser = Parser("quickstart", _DESCRIPTION)
    parser.add_argument("--task", choices=TASKS, default="video", help="what is predicted (video)")
    parser.add_argument(
        "--directory",
        help="where runs and results are written (runs/quickstart, or runs/quickstart_TASK)",
    )
    parser.add_argument("--report", action="store_true", help="write report.html of all runs too")
    options = parser.parse(arguments)
    folder = "runs/quickstart" + ("" if options.task == "video" else f"_{options.task}")
    directory = options.directory or folder

    from jaxmoe.reporting.progress import make_progress
    from jaxmoe.runs import quickstart

    try:
        with make_progress() as progress:
            folders = quickstart.run(quickstart.TASKS[options.task], directory, progress)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped; the same command resumes {directory} from its last checkpoint"
        ) from None
    report.offer(folders, written=options.report)
