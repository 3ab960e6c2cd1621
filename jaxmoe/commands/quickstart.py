"""`jaxmoe quickstart`: the whole of the library in minutes."""

from jaxmoe.commands.arguments import Parser, Stopped

_DESCRIPTION = """Trains a small mixture of experts on clips that are rendered on the spot: plainly,
then with AT-M and with J-TLAT. Attacks the three and prints one table. Needs no data and no
accelerator; about five minutes on two CPU cores."""


def run(arguments: list[str]) -> None:
    """Runs the quickstart.

    Raises:
      ValueError: bad input, one line.
      Stopped: Ctrl-C.
    """
    parser = Parser("quickstart", _DESCRIPTION)
    parser.add_argument(
        "--directory",
        default="runs/quickstart",
        help="where runs and results are written (runs/quickstart)",
    )
    options = parser.parse(arguments)

    from jaxmoe import quickstart
    from jaxmoe.reporting.progress import make_progress

    try:
        with make_progress() as progress:
            quickstart.run(options.directory, progress)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped; the same command resumes {options.directory} from its last checkpoint"
        ) from None
