"""Starts any jaxmoe command on all devices of this machine, or on virtual CPU devices.

python launch/local.py -- train configs/video/ut_interaction_at_m.py --data.directory DIR
python launch/local.py --virtual-devices 4 -- train configs/video/quickstart.py

Training splits its batch over all devices that JAX sees. Virtual devices share the CPU's cores:
they show that a run works on several devices, not how fast it is there.
"""

import argparse
import os
import subprocess
import sys

FLAG = "--xla_force_host_platform_device_count"


def main(argv: list[str] | None = None) -> int:
    """Runs the command in a child process, which alone imports JAX; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="launch/local.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--virtual-devices", type=int, metavar="N", help="run on N virtual CPU devices"
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="-- and a jaxmoe command with its arguments"
    )
    options = parser.parse_args(argv)
    command = options.command[options.command[:1] == ["--"] :]
    if not command:
        parser.error("no command; expected -- and a jaxmoe command, such as -- train CONFIG.py")
    if options.virtual_devices is not None and options.virtual_devices < 1:
        parser.error(f"--virtual-devices: {options.virtual_devices} is not at least 1")
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxmoe", *command],
        env=environment(dict(os.environ), options.virtual_devices),
    )
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal sends Ctrl-C to the child as well, which says how to resume.
            continue


def environment(variables: dict[str, str], virtual_devices: int | None) -> dict[str, str]:
    """`variables`, with JAX told to make virtual CPU devices before it starts."""
    if virtual_devices is None:
        return variables
    others = [flag for flag in variables.get("XLA_FLAGS", "").split() if FLAG not in flag]
    flags = " ".join([*others, f"{FLAG}={virtual_devices}"])
    return variables | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


if __name__ == "__main__":
    sys.exit(main())
