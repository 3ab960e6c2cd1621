"""What `jaxmoe study` starts, and in which order, with processes that are none."""

import types

import pytest

from jaxmoe.commands.arguments import RunFailedError
from jaxmoe.commands.study import _Board
from jaxmoe.config import Arm, Study
from jaxmoe.runs.study.cost import Cost
from jaxmoe.runs.study.runner import Job
from tests.commands.tiny import TINY

ARMS = {"at_m": Arm("AT-M", {"recipe": "at_m"}, start="clean"), "clean": Arm("clean")}
STUDY = Study(TINY, ARMS, seeds=(0, 1), transfer=("pgd",))
CLEAN, AT_M, TRANSFER = BLOCK = ("seed0/clean", "seed0/at_m", "seed0/transfer")
OTHER_BLOCK = ("seed1/clean", "seed1/at_m", "seed1/transfer")


class Process:
    """A process that ends at the second look at it."""

    def __init__(self, code, end):
        self.code, self.end, self.looks = code, end, 0

    def poll(self):
        self.looks += 1
        if self.looks == 2:
            self.end()
        return self.code if self.looks >= 2 else None


@pytest.fixture
def events_of(tmp_path, monkeypatch):
    """What happens when `STUDY` is run whose other block is done."""

    def run(trained=(), done=(), failing=()):
        done = {*OTHER_BLOCK, *done}
        trained, events = {*done, *trained}, []

        def start(job, cores):
            def end():
                events.append(f"{job.name} ends")
                if job.name not in failing:
                    trained.add(job.name)

            events.append(f"{job.name} begins")
            job._log.parent.mkdir(exist_ok=True)
            job._log.touch()
            job._process = Process(int(job.name in failing), end)

        def name(folder):
            return folder.relative_to(tmp_path).as_posix()

        cost = Cost(1.0, 1.0, 1, 1.0, 1.0)
        replaced = {
            "cost.costs": lambda *_: {("", arm): cost for arm in ARMS},
            "found.is_trained": lambda folder: name(folder) in trained,
            "found.is_evaluated": lambda study, folder, attacks: name(folder) in done,
            "found.is_transferred": lambda study, folder, arms: name(folder) in done,
            "runner._LOOK": 0.0,
        }
        for place, own in replaced.items():
            monkeypatch.setattr(f"jaxmoe.runs.study.{place}", own)
        monkeypatch.setattr(Job, "start", start)
        monkeypatch.setattr(_Board, "_write", lambda board: None)
        options = types.SimpleNamespace(file="study.py", arms=None, jobs=2, list=False)
        try:
            _Board(STUDY, tmp_path, options, []).run()
        except RunFailedError as error:
            events.append(str(error))
        return events

    return run


def whole(*names):
    return [f"{name} {what}" for name in names for what in ("begins", "ends")]


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ((), BLOCK),
        ((CLEAN,), (AT_M, TRANSFER)),
        ((CLEAN, AT_M), (TRANSFER,)),
        ((AT_M, TRANSFER), (CLEAN,)),
        (BLOCK, ()),
    ],
)
def test_what_is_left_runs_start_then_arm_then_transfer(done, left, events_of):
    assert events_of(done=done) == whole(*left)


def test_an_arm_does_not_wait_for_the_judging_of_its_start(events_of):
    began_and_ended = events_of(trained=[CLEAN])
    assert began_and_ended[:2] == [f"{CLEAN} begins", f"{AT_M} begins"]
    assert began_and_ended[4:] == whole(TRANSFER)


def test_a_start_that_failed_does_not_start_its_arm(events_of):
    *ran, said = events_of(failing=[CLEAN])
    assert ran == whole(CLEAN, TRANSFER)
    assert said == f"2 of 3 failed: {CLEAN}, {AT_M}"
