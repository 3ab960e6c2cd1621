"""Scripts that start worker processes, with and without a guard."""

import subprocess
import sys

import pytest

CALL = """
from jaxmoe.data.loading.main_guard import check_main_guard
def start():
    check_main_guard(2)
{}
print("started")
"""
GUARDED = 'if __name__ == "__main__":\n    start()'


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **options
    )


@pytest.fixture
def script(tmp_path):
    def write(body, name="script.py"):
        (tmp_path / name).write_text(CALL.format(body))
        return tmp_path / name

    return write


def test_a_script_without_a_guard_is_refused_before_any_worker_starts(script):
    file = script("start()")
    done = run(file)
    assert done.stderr.splitlines()[-1].startswith(
        f"ValueError: data.workers: 2 would each run {file} from its top; put what it runs under"
    )
    assert done.stdout == ""


@pytest.mark.parametrize(
    "body", [GUARDED, 'if 1 and "__main__" == __name__:\n    for _ in range(1):\n        start()']
)
def test_a_script_with_a_guard_starts_them(script, body):
    assert run(script(body)).stdout == "started\n"


def test_what_no_worker_imports_needs_no_guard(script):
    text = script("start()").read_text()
    assert run("-c", text).stdout == "started\n"
    assert run("-", input=text).stdout == "started\n"
