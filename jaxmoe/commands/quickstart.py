"""`jaxmoe quickstart`: the whole of the library in minutes."""

from jaxmoe.commands.arguments import Parser, Stopped

_DESCRIPTION = """Trains a small mixture of experts on clips or images that are rendered on the
spot: plainly, then with two defences. Attacks the three and prints one table. Needs no data and no
accelerator; about five minutes on two CPU cores.

video: AT-M and J-TLAT, attacked as a whole (PGD), at the router (TLGA-R) and at both (J-TLGA).
image: PGD-AT and RT-ER, attacked as a whole (PGD), at the router (PGD-R), at experts (PGD-E)."""

TASKS = ("video", "image")


def run(arguments: list[str]) -> None:
    """Runs the quickstart.

    Raises:
      ValueError: bad input, one line.
      Stopped: Ctrl-C.
    """
    parser = Parser("quickstart", _DESCRIPTION)
    parser.add_argument("--task", choices=TASKS, default="video", help="what is classified (video)")
    parser.add_argument(
        "--directory",
        help="where runs and results are written (runs/quickstart; of images …/quickstart_image)",
    )
    options = parser.parse(arguments)
    folder = "runs/quickstart" + ("" if options.task == "video" else f"_{options.task}")
    directory = options.directory or folder

    from jaxmoe import quickstart
    from jaxmoe.reporting.progress import make_progress

    try:
        with make_progress() as progress:
            quickstart.run(quickstart.TASKS[options.task], directory, progress)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped; the same command resumes {directory} from its last checkpoint"
        ) from None
