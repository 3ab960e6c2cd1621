"""The cluster launchers, without a cluster: small programs stand where srun, gcloud or curl would.

They show what the launchers pass on and what they do after each exit code. That a cluster takes
them as they are, no test here can show.
"""

import math
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml

from tests.readme_test import check_command, passed_on

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
ROOT = LAUNCH.parent
SLURM, POD = LAUNCH / "slurm.sbatch", LAUNCH / "tpu_pod.sh"
SCRIPTS = [SLURM, POD]
FILES = [*SCRIPTS, LAUNCH / "gke_jobset.yaml", *sorted(LAUNCH.glob("*.Dockerfile"))]
PREEMPTED = 75
TRAIN = ["train", "configs/video/ucf101_j_tlat.py", "--run.directory", "a folder; of 'runs'"]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Returns a function that puts a program of a name before all others."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))

    def put(name: str, body: str, folder: pathlib.Path = folder) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)

    return put


def run(script: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", script, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def words_of(file: pathlib.Path) -> list[list[str]]:
    """Returns the commands that a launcher's own text shows, as lists of words."""
    starts = ("sbatch ", "launch/tpu_pod.sh ", "kubectl ", "docker build ")
    lines = [line.strip("# ") for line in file.read_text("utf-8").splitlines()]
    shown = [line for line in lines if line.startswith(starts) and "[" not in line]
    commands = [line.partition(" && ")[0] for line in shown]
    return [shlex.split(re.sub("^launch/tpu_pod", "bash launch/tpu_pod", c)) for c in commands]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_have_no_fault_that_shellcheck_knows(script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_commands_in_their_texts_are_accepted(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = words_of(file)
    assert commands
    for words in commands:
        if (command := passed_on(words)) is not None:
            check_command(command)


# Slurm.

SRUN = """
printf '%s\\n' "${JAX_LOCAL_DEVICE_IDS:-}" "$@" >"$SEEN"
exit "$CODE"
"""


@pytest.mark.parametrize("code", [0, 1, 2, PREEMPTED])
def test_a_preempted_slurm_job_is_queued_again_and_no_other(code, programs, tmp_path, monkeypatch):
    programs("srun", SRUN)
    programs("scontrol", 'echo "scontrol $*"')
    for name, value in {
        "CODE": code,
        "SLURM_JOB_ID": 7,
        "SLURM_GPUS_ON_NODE": 8,
        "SLURM_CPUS_PER_TASK": 32,
    }.items():
        monkeypatch.setenv(name, str(value))
    done = run(SLURM, *TRAIN)
    assert done.returncode == code
    assert done.stderr == ""
    assert done.stdout == ("scontrol requeue 7\n" if code == PREEMPTED else "")
    devices, *seen = (tmp_path / "seen").read_text().splitlines()
    assert devices == "0,1,2,3,4,5,6,7", "a task has all GPUs of its node"
    assert "--cpus-per-task=32" in seen
    assert seen[seen.index("python") :] == ["python", "-m", "jaxmoe", *TRAIN]


def test_a_slurm_job_without_a_command_is_refused(programs):
    programs("srun", SRUN)
    done = run(SLURM)
    assert done.returncode == 2
    assert "no command" in done.stderr


def test_slurm_is_asked_for_what_going_on_needs():
    text = SLURM.read_text("utf-8")
    options = re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE)
    assert {"--ntasks-per-node=1", "--signal=TERM@120", "--requeue"} <= set(options)
    assert "--open-mode=append" in options, "the log of before stays"
    # Slurm reads no options behind the first command.
    assert text.rindex("#SBATCH") < re.search(r"^[^#\n]", text, re.MULTILINE).start()


# A slice of TPU VMs.

# Runs what it is told on two workers, which differ in their homes and their metadata.
GCLOUD = """
printf '%s\\n' "$*" >>"$SEEN"
for word in "$@"; do
    case "$word" in --command=*) command=${word#--command=} ;; esac
done
[ "$4" = ssh ] || exit 0
case "$command" in *uv*) exit 0 ;; esac
result=0
for WORKER in 0 1; do
    export WORKER
    HOME="$HOMES/$WORKER" bash -c "$command" || result=$?
done
exit "$result"
"""
CURL = """
case "$*" in
*agent-worker-number) echo "$WORKER" ;;
*worker-network-endpoints) echo "$ENDPOINTS" ;;
*) exit 22 ;;
esac
"""
JAXMOE = """
told=("$JAX_COORDINATOR_ADDRESS" "$JAX_NUM_PROCESSES" "$JAX_PROCESS_ID" "$JAXMOE_CACHE" "$@")
printf '%s\\n' "${told[@]}" >"$HOME/told"
echo "line of $JAX_PROCESS_ID"
[ "$JAX_PROCESS_ID" = 0 ] || exit "$CODE"
"""


@pytest.fixture
def workers(programs, tmp_path, monkeypatch):
    """Returns the homes of two workers."""
    programs("gcloud", GCLOUD)
    programs("curl", CURL)
    programs("git", 'echo "git $*" >>"$SEEN"')
    homes = [tmp_path / "homes" / str(worker) for worker in range(2)]
    for home in homes:
        (home / "jaxmoe").mkdir(parents=True)
        programs("jaxmoe", JAXMOE, home / "jaxmoe-env" / "bin")
    for name, value in {
        "HOMES": str(tmp_path / "homes"),
        "CODE": "0",
        "ENDPOINTS": "unknown:unknown:10.0.0.4,unknown:unknown:10.0.0.5",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("JAXMOE_CACHE", "JAXMOE_START_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    return homes


@pytest.mark.parametrize(
    ("endpoints", "first"),
    [
        ("unknown:unknown:10.0.0.4,unknown:unknown:10.0.0.5", "10.0.0.4"),
        ("t1v-0.internal,t1v-1.internal", "t1v-0.internal"),
    ],
)
def test_all_workers_of_a_slice_run_the_command(endpoints, first, workers, tmp_path, monkeypatch):
    monkeypatch.setenv("ENDPOINTS", endpoints)
    monkeypatch.setenv("JAXMOE_CACHE", "/shared/the cache")
    done = run(POD, "slice", "zone", *TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "line of 0\n", "the other workers write to their logs alone"
    for number, home in enumerate(workers):
        told = (home / "told").read_text().splitlines()
        assert told == [f"{first}:8482", "2", str(number), "/shared/the cache", *TRAIN]
        assert not (home / "jaxmoe.pid").exists()
    archived, copied, *_ = (tmp_path / "seen").read_text().splitlines()
    assert archived.startswith(f"git -C {LAUNCH}/.. archive")
    assert copied.startswith("compute tpus tpu-vm scp")
    assert copied.endswith("slice:jaxmoe.tar.gz --zone=zone --worker=all")


def test_a_failed_worker_shows_its_last_lines(workers, monkeypatch):
    monkeypatch.setenv("CODE", "3")
    done = run(POD, "slice", "zone", *TRAIN)
    assert done.returncode == 3
    assert "[1] line of 1" in done.stderr


def test_a_slice_runs_one_command_at_a_time_until_it_is_stopped(workers):
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in workers]
    try:
        for sleeper, home in zip(sleepers, workers, strict=True):
            (home / "jaxmoe.pid").write_text(str(sleeper.pid))
        done = run(POD, "slice", "zone", *TRAIN)
        assert done.returncode == 1
        assert "--stop" in done.stderr
        assert run(POD, "slice", "zone", "--stop").returncode == 0
        assert [sleeper.wait(timeout=30) for sleeper in sleepers] == [-15, -15]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_a_dry_run_runs_nothing(workers, tmp_path):
    done = run(POD, "--dry-run", "slice", "zone", *TRAIN)
    assert done.returncode == 0
    assert not (tmp_path / "seen").exists()
    assert done.stdout.count("gcloud compute tpus tpu-vm ssh slice --zone=zone --worker=all") == 2
    assert "jaxmoe[tpu]" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["slice"], ["slice", "zone"], ["--dry-run", "slice"]])
def test_a_slice_without_a_command_shows_the_usage(arguments):
    done = run(POD, *arguments)
    assert done.returncode == 2
    assert "usage: launch/tpu_pod.sh" in done.stderr


# Kubernetes.


@pytest.fixture(scope="module")
def job_set() -> dict:
    return yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def job(job_set) -> dict:
    (workers,) = job_set["spec"]["replicatedJobs"]
    return workers["template"]["spec"]


@pytest.fixture(scope="module")
def container(job) -> dict:
    (container,) = job["template"]["spec"]["containers"]
    return container


def test_hosts_and_chips_are_those_of_the_topology(job, container):
    selector = job["template"]["spec"]["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    chips = math.prod(map(int, selector["cloud.google.com/gke-tpu-topology"].split("x")))
    assert chips == 16
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert job["completions"] * resources["limits"]["google.com/tpu"] == chips
    assert job["parallelism"] == job["completions"], "all hosts run at once"


def test_pods_find_each_other(job_set, job, container):
    environment = {variable["name"]: variable for variable in container["env"]}
    assert environment["JAX_NUM_PROCESSES"]["value"] == str(job["completions"])
    assert job["completionMode"] == "Indexed"
    source = environment["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert source == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    name, network = job_set["metadata"]["name"], job_set["spec"]["network"]
    (workers,) = job_set["spec"]["replicatedJobs"]
    host, port = environment["JAX_COORDINATOR_ADDRESS"]["value"].split(":")
    assert host == f"{name}-{workers['name']}-0-0.{network['subdomain']}"
    assert network["enableDNSHostnames"]
    assert {"containerPort": int(port)} in container["ports"]


def test_preempted_pods_start_again_as_often_as_it_takes(job_set, job, container):
    first, second = job["podFailurePolicy"]["rules"]
    assert first["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [PREEMPTED],
    }
    assert [condition["type"] for condition in second["onPodConditions"]] == ["DisruptionTarget"]
    assert {first["action"], second["action"]} == {"FailJob"}
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never", "else no exit code is looked at"
    policy = job_set["spec"]["failurePolicy"]
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] > 0


def test_the_pods_command_is_accepted_and_writes_where_all_pods_see_it(job, container, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_command([*container["command"], *container["args"]])
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in job["template"]["spec"]["volumes"]}
    folders = dict(word.split("=") for word in container["args"] if "=" in word)
    assert folders["--run.directory"].startswith(mounts["shared"])
    assert folders["--data.directory"].startswith(mounts["shared"])


# Images.


@pytest.mark.parametrize("extra", ["gpu", "tpu"])
def test_an_image_has_what_the_package_needs(extra):
    lines = (LAUNCH / f"{extra}.Dockerfile").read_text("utf-8").splitlines()
    copied = {source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"], "jaxmoe", "configs"}
    assert needed <= copied
    assert all((ROOT / source).exists() for source in copied)
    assert extra in project["optional-dependencies"]
    assert f"RUN pip install --no-cache-dir '.[{extra}]'" in lines
    assert 'ENTRYPOINT ["jaxmoe"]' in lines
    version = re.search(r"FROM python:(\d+\.\d+)-slim", "\n".join(lines))[1]
    assert project["requires-python"] == f">={version}"
