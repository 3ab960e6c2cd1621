"""`jaxmoe <command>`: finds the command, runs it, and turns errors into one clear line.

Exit codes: 0 done, 1 a run that broke, 2 bad input, 130 stopped by Ctrl-C. Errors go to standard
error, everything else to standard output. A command's module is imported when it is called, so that
help answers at once.
"""

import importlib
import io
import logging
import os
import pathlib
import sys
import traceback
import warnings
from collections.abc import Sequence
from types import ModuleType

from jaxmoe.files import FULL
from jaxmoe.spelling import did_you_mean

COMMANDS = {
    "quickstart": "train, attack and judge a small mixture on rendered videos, in minutes",
    "train": "train a mixture as a config file says; resumes a run that was stopped",
    "import": "make a run of a mixture whose experts have weights of PyTorch",
    "evaluate": "attack a trained run and write its table of robust accuracies",
    "sweep": "the same over a grid of ε, with curves",
    "certify": "prove how far a trained run's predictions hold, beside what attacks find",
    "transfer": "attack each of several runs and score the others on the same examples",
    "study": "train and judge many runs that are compared, and print their tables",
    "plan": "say what a config takes on devices that are not here: memory, collectives, time",
    "data": "show what is in a dataset: classes, examples, frames, skipped files",
    "show": "show what a run is, how far it is, and its last results; or what a config takes",
    "report": "write one page that shows what an evaluation found, for a browser",
    "attacks": "list all attacks by the part that they attack",
    "benchmark": "measure this machine against the library's own bars",
}

# These work on all processes that a launcher starts together.
SPREAD = ("train", "evaluate", "sweep", "transfer", "certify")

_HELP = """usage: jaxmoe COMMAND …

Attack, train and judge mixture-of-experts models, part by part.

commands:
{commands}

Every command takes --plugin FILE.py, a file that adds data sets, experts, attacks, … of one's own.
jaxmoe COMMAND --help says more about one. Start with `jaxmoe quickstart`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        print(_HELP.format(commands=listed))
        return 0
    if arguments[0] == "--version":
        from jaxmoe import __version__

        print(f"jaxmoe {__version__}")
        return 0
    command, *rest = arguments
    rest, plugins = _take_plugins(rest)
    if command not in COMMANDS:
        return _fail(f"no command {command!r}{did_you_mean(command, COMMANDS)}")
    if argv is None:
        _ask_for_huge_pages()
    for stream in (sys.stdout, sys.stderr):
        # A file's name may hold what the terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _hush_libraries()
    _remember_programs()
    with warnings.catch_warnings():
        # Ours are printed or raised, never warned.
        warnings.simplefilter("ignore")
        return _run(command, rest, plugins)


def module_of(command: str) -> ModuleType:
    """Returns the module of a command; Python keeps the word `import` for itself."""
    name = "import_weights" if command == "import" else command
    return importlib.import_module(f"jaxmoe.commands.{name}")


def _join_processes() -> None:
    """Joins the other processes of this command, if there are any; the first alone speaks."""
    # Read here, too: without these variables nothing has to be imported.
    names = ("JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    if not any(os.environ.get(name) for name in (*names, "TPU_WORKER_HOSTNAMES")):
        return
    hosts = importlib.import_module("jaxmoe.parallel.hosts")
    hosts.join()
    if not hosts.is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, closed with the process


def _take_plugins(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--plugin FILE`, and the files."""
    rest, plugins, given = [], [], iter(arguments)
    for argument in given:
        name, equals, file = argument.partition("=")
        if name == "--plugin":
            plugins.append(file if equals else next(given, ""))
        else:
            rest.append(argument)
    return rest, plugins


def _run(command: str, arguments: list[str], plugins: list[str]) -> int:
    from jaxmoe.commands.arguments import RunFailedError, Stopped

    try:
        if command in SPREAD and not {"-h", "--help"} & set(arguments):
            _join_processes()
        if plugins:
            importlib.import_module("jaxmoe.plugins").load_plugins(plugins)
        module_of(command).run(arguments)
        sys.stdout.flush()
    except SystemExit as exit:  # argparse has printed a help text
        return int(exit.code or 0)
    except RunFailedError as error:
        return _fail(str(error), code=1)
    except Stopped as stopped:
        return _fail(str(stopped), code=stopped.code)
    except KeyboardInterrupt:
        return _fail("stopped; nothing of it is kept", code=130)
    except BrokenPipeError:  # whoever read the output has seen enough: `jaxmoe train -h | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return _fail(_of_system(error))
    except (ValueError, ArithmeticError, AssertionError, RuntimeError, MemoryError) as error:
        if _is_out_of_memory(error):
            return _fail(f"out of memory: {error}; {_less_memory(command)}")
        # Another library's error is a bug of ours: it keeps its traceback. Ours say what is wrong
        # with the input, or with a run's numbers.
        if not _raised_by_us(error):
            raise
        return _fail(str(error), code=2 if isinstance(error, ValueError) else 1)
    return 0


def _fail(message: str, code: int = 2) -> int:
    print(f"jaxmoe: {' '.join(message.split())}", file=sys.stderr)
    return code


def _of_system(error: OSError) -> str:
    """Returns what the system said, where, and what to do if a disk is full."""
    if error.errno is None or error.strerror is None:  # one of ours, in words
        return str(error)
    where = "" if error.filename is None else f"{error.filename}: "
    full = "; make room, or raise the quota or limit, and run the same command again"
    return f"{where}{error.strerror}{full if error.errno in FULL else ''}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Returns whether memory, of the host or a device, was too small."""
    tells = ("RESOURCE_EXHAUSTED", "OUT_OF_MEMORY", "Out of memory")
    return isinstance(error, MemoryError) or any(tell in str(error) for tell in tells)


def _less_memory(command: str) -> str:
    if command in ("quickstart", "data", "benchmark", "plan"):
        return "close other programs"
    option = "--training.batch-size" if command == "train" else "--batch-size"
    return f"a smaller {option}, or model, takes less; what was saved is kept"


def _raised_by_us(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    package, plugins = pathlib.Path(__file__).parent, ()
    if "jaxmoe.plugins" in sys.modules:
        plugins = sys.modules["jaxmoe.plugins"].loaded()
    raised_in = frames[-1].filename
    return pathlib.Path(raised_in).is_relative_to(package) or raised_in in plugins


def _ask_for_huge_pages() -> None:
    """Starts this command anew with a setting that glibc reads only when a process starts.

    On CPUs a compiled program takes its workspace from the system and gives it back in every call.
    In pages of 4 KiB, their faults are a quarter of a training step's time.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ:
        return
    # What came from a prompt, a notebook or standard input cannot be started anew.
    script = getattr(sys.modules["__main__"], "__file__", None)
    if "-c" not in sys.orig_argv and not os.path.isfile(script or ""):
        return
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    try:
        os.execv(sys.executable, sys.orig_argv)
    except (OSError, TypeError, ValueError):  # no such python, or more arguments than it takes
        del os.environ["GLIBC_TUNABLES"]  # slower, and right all the same


def _remember_programs() -> None:
    """Keeps compiled programs beside the prepared data: a second run compiles nothing."""
    try:
        cache = pathlib.Path(os.environ.get("JAXMOE_CACHE") or "~/.cache/jaxmoe").expanduser()
    except RuntimeError:  # this user has no home: programs are compiled anew
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "programs"))


def _hush_libraries() -> None:
    """Keeps what other libraries say to themselves off the terminal; read before their import."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    for name in ("jax", "tensorflow_datasets", "matplotlib", "grain"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # What saves and reads checkpoints logs a full disk or a damaged array, each thread and future
    # for itself; the save or the restore raises it as well.
    for name in ("absl", "orbax", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
