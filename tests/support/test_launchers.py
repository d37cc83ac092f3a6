"""Launchers are told by what they put into the environment, and the places that are typed are checked."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlstm import cli
from charlstm.support import hosts
from charlstm.support.errors import InputError

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_NODELIST": "node[007-008,011]",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "3",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
URI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
TPU = {"TPU_WORKER_HOSTNAMES": "host-a,host-b", "TPU_WORKER_ID": "1"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No launcher, and all packages."""
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "KUBERNETES_", "JOB_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(hosts, "find_spec", lambda name: name)


def surround(monkeypatch: pytest.MonkeyPatch, *variables: dict[str, str]) -> None:
    for name, value in ((name, value) for each in variables for name, value in each.items()):
        monkeypatch.setenv(name, value)


def test_a_process_by_itself_has_no_launcher() -> None:
    assert hosts.launcher() is None


def test_a_step_of_slurm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As JAX reads its variables."""
    surround(monkeypatch, SLURM)
    found = hosts.launcher()
    assert found and found == hosts.Launcher("Slurm")
    place = hosts.find_place(found)
    port = 4711 % 4096 + 65535 - 4095
    assert place == hosts.Place(f"node007:{port}", 3, 2, "Slurm", [0])
    assert (place.host, place.port, place.speaks) == ("node007", port, False)


@pytest.mark.parametrize("missing", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": ""}])
def test_the_script_of_an_sbatch_job_trains_by_itself(monkeypatch: pytest.MonkeyPatch, missing: dict[str, str]) -> None:
    """It has the job's SLURM_NTASKS, and nobody to wait for."""
    surround(monkeypatch, SLURM | missing)
    assert hosts.launcher() is None


def test_open_mpi_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, OPEN_MPI, URI)
    found = hosts.launcher()
    assert found and found == hosts.Launcher("Open MPI")
    place = hosts.find_place(found)
    assert (place.host, place.count, place.number, place.devices) == ("10.96.0.1", 2, 1, [1])


def test_open_mpi_5_needs_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, OPEN_MPI)
    found = hosts.launcher()
    assert found and found == hosts.Launcher("Open MPI", "mpi4py")
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="with mpi4py, which is not installed; pip install mpi4py, or give --coord"):
        hosts.find_place(found)


def test_one_process_of_mpirun_trains_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, URI)
    assert hosts.launcher() is None


def test_tpu_pods_are_found_on_gke(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, TPU)
    assert hosts.launcher() == hosts.Launcher("a TPU pod")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-a")
    assert hosts.launcher() is None
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)  # JAX cannot use a TPU
    monkeypatch.setenv("TPU_PROCESS_ADDRESSES", "host-a:8476,host-b:8476")
    assert hosts.launcher() is None


class Metadata(http.server.BaseHTTPRequestHandler):
    """Google's server of an instance's metadata."""

    endpoints = ""

    def do_GET(self) -> None:
        wanted = "/computeMetadata/v1/instance/attributes/worker-network-endpoints"
        assert (self.path, self.headers["Metadata-Flavor"]) == (wanted, "Google")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.endpoints.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_tpu_pods_are_found_by_their_metadata(monkeypatch: pytest.MonkeyPatch, metadata: str) -> None:
    monkeypatch.setenv("GCE_METADATA_IP", metadata)
    monkeypatch.setattr(Metadata, "endpoints", "unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3")
    assert hosts.launcher() is None  # without a chip nothing is asked
    monkeypatch.setattr(hosts, "glob", lambda pattern: ["/dev/accel0"])
    assert hosts.launcher() == hosts.Launcher("a TPU pod")
    monkeypatch.setattr(Metadata, "endpoints", "unknown:unknown:10.0.0.2")
    assert hosts.launcher() is None
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:1")
    assert hosts.launcher() is None


def test_an_indexed_job_of_kubernetes_is_found_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, KUBERNETES)
    assert hosts.launcher() == hosts.Launcher("Kubernetes")
    monkeypatch.setattr(hosts, "find_spec", lambda name: None)
    assert hosts.launcher() is None


def test_what_jax_cannot_find_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    surround(monkeypatch, OPEN_MPI, {"OMPI_MCA_orte_hnp_uri": "nonsense"})
    found = hosts.launcher()
    assert found
    with pytest.raises(InputError, match=r"Open MPI started several .* JAX does not find them \(.*\); give --coord"):
        hosts.find_place(found)


def test_a_typed_place() -> None:
    assert hosts.typed_place(None, None, None) is hosts.typed_place(None, "1", None) is None
    place = hosts.typed_place("[fe80::1]:1234", "2", "1")
    assert place and (place.host, place.port, place.count, place.number, place.speaks) == ("fe80::1", 1234, 2, 1, True)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (("node:1234", None, None), "give all of --coordinator-address HOST:PORT --num-processes N --process-id I"),
        ((None, "2", None), "give all of"),
        ((None, None, "0"), "give all of"),
        (("node", "2", "0"), "it must be HOST:PORT"),
        (("node:99999", "2", "0"), "it must be HOST:PORT"),
        (("node:1234", "two", "0"), "--num-processes is 'two'; it must be a whole number"),
        (("node:1234", "2", "-1"), "--process-id is '-1'"),
        (("node:1234", "2", "2"), "of 2 processes it must be 0 to 1"),
    ],
)
def test_a_place_that_cannot_be_is_one_line(
    typed: tuple[str | None, str | None, str | None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("--coordinator-address", "--num-processes", "--process-id")
    options = [f"{name}={value}" for name, value in zip(names, typed, strict=True) if value is not None]
    assert cli.run(["train", *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_other_commands_are_for_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surround(monkeypatch, SLURM)
    for command in ("compare", "eval", "sample", "report"):
        assert cli.run([command, str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert f"`charlstm {command}` is one process; start it once" in error and error.count("\n") == 1
    assert cli.run(["corpora"]) == 0
    assert cli.run(["compare", "--on", "ray"]) == 2  # Ray has a way of its own to start in a step of Slurm's
    assert "is one process" not in capsys.readouterr().err
