"""A comparison on a cluster: each model is a task of Ray's, which finds it a node, and another where that one is lost.

The head, which is the process that was asked for the comparison, reads the text, opens the folder and makes the table,
as it does without Ray. A task trains and measures the seeds of one model: in the head's folder where its node sees
that, so that it goes on from the checkpoints of a task that was lost; elsewhere in a folder of its own, whose files it
gives back.
"""

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from charlstm.compare.comparison import Comparison
from charlstm.compare.grid import GridModel
from charlstm.compare.task import MARK, PATIENCE, UNSEEN, Board, Job, News, complete_as_task, pack, unpack
from charlstm.config import CELLS
from charlstm.core.size import count_operations
from charlstm.runs.config_file import installed
from charlstm.runs.folder import Run
from charlstm.support.errors import InputError, Interrupted, TrainingError, extra
from charlstm.support.files import one_line, write_atomic
from charlstm.support.process import MOST_CPU_DEVICES, cores

_LOOK = 0.5
"""Seconds between two looks of the head at its tasks."""
_ANSWERS = 10.0
"""Seconds in which a cluster's head accepts a connection."""
_RETRIES = 10
"""How often a model may be lost before the comparison goes on without it."""
_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""It tells its makers nothing, and prints nothing among our lines when a node is lost."""
_SETTINGS = ("CHARLSTM_", "CUBLAS_", "JAX_", "LIBTPU_", "XLA_")
"""Beginnings of the names of environment variables that tasks have from the head, as numbers may depend on them."""


def complete_on(on: str, comparison: Comparison, models: Sequence[GridModel]) -> Iterator[GridModel]:
    """Gives each model once the runs that it lacks are trained and measured, as tasks of the cluster `on`.

    Raises:
        InputError: there is no such cluster.
        Interrupted: a signal came; the tasks have saved, and are gone.
        Exception: the first failure of a task, once all the others are done.
    """
    missing = {model.name: comparison.missing(model) for model in models}
    yield from (model for model in models if not missing[model.name])
    if todo := [model for model in models if missing[model.name]]:
        with _connected(on) as ray, _marked(comparison.folder) as mark:
            head = _Head(ray, comparison, len(todo))
            size = len(comparison.data.vocabulary)
            # The longest begin first, so that none of them is alone at the end.
            for model in sorted(todo, key=lambda each: -count_operations(each.config.model, size)):
                numbers = missing[model.name]
                begun = any(Run.exists(comparison.run_folder(model, number)) for number in numbers)
                cells = {name: cell for name, cell in CELLS.items() if cell is not None}
                where = comparison.grid, comparison.folder.absolute(), model, numbers, begun, mark
                head.send(Job(*where, socket.gethostname(), cells, installed()))
            yield from head.results()


def import_ray() -> Any:
    """Ray; InputError where it is not installed."""
    for name, value in _RAY.items():
        os.environ.setdefault(name, value)
    with extra("ray"):
        import ray
    return ray


@contextmanager
def _connected(on: str) -> Iterator[Any]:
    """Ray, in the cluster at an address, in the one that RAY_ADDRESS names, or in one of this machine for the block."""
    ray = import_ray()
    if ray.is_initialized():  # by a program, which knows where
        yield ray
        return
    how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    handler, address = signal.getsignal(signal.SIGTERM), os.environ.get("RAY_ADDRESS", "") if on == "ray" else on
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon:
            socket.create_connection(
                (host.strip("[]"), int(port)), _ANSWERS
            ).close()  # for which Ray would wait ten minutes
        own = {} if address else {"num_cpus": cores(), "include_dashboard": False}
        ray.init(address or "local", **how, **own)
    except Exception as error:
        why = one_line(error).rstrip(".")
        how_to = "see `ray status`; one with a token needs that in RAY_AUTH_TOKEN, and RAY_AUTH_MODE=token"
        if type(error) is TimeoutError or getattr(error, "errno", None):  # of the connection, before Ray was asked
            why, how_to = getattr(error, "strerror", None) or why, "start Ray there, or give the address of its head"
        raise InputError(f"there is no Ray cluster at {address or 'this machine'}: {why}; {how_to}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process before anything is saved
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _marked(folder: Path) -> Iterator[str]:
    mark = uuid.uuid4().hex
    write_atomic(folder / MARK, mark.encode())
    try:
        yield mark
    finally:
        (folder / MARK).unlink(missing_ok=True)


class _Head:
    """Sends models out as tasks, and takes in what becomes of them."""

    def __init__(self, ray: Any, comparison: Comparison, models: int) -> None:
        self._ray, self._comparison, self._watch = ray, comparison, comparison.watch
        self._options = _options(ray, comparison.grid.seeds, models)
        here = ray.get_runtime_context().get_node_id()
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        self._board = ray.remote(Board).options(num_cpus=0, max_restarts=-1, scheduling_strategy=near).remote()
        self._data = ray.put(comparison.data)
        self._tasks = dict[Any, tuple[Job, list[Any]]]()
        self._stops, self._errors = dict[str, int](), list[Exception]()

    def send(self, job: Job, copies: Any = None) -> None:
        """Makes a model a task; `copies` are what the head has of its runs' files."""
        options = self._options | {"num_returns": 1 + len(job.numbers), "max_retries": _RETRIES}
        first, *files = (
            self._ray.remote(complete_as_task).options(**options).remote(job, self._data, self._board, copies)
        )
        self._tasks[first] = job, files

    def results(self) -> Iterator[GridModel]:
        """The models, each as soon as it is complete."""
        received, cancelled, news = self._comparison.received, False, News([], {})
        while self._tasks:
            ready, _ = self._ray.wait(list(self._tasks), timeout=_LOOK)
            try:
                news = self._ray.get(self._board.news.remote(received[0] if received else 0))
            except self._ray.exceptions.RayActorError:  # its node was lost; Ray makes it again on another
                news = News([], news.works)
            for text, style in news.lines:
                self._watch.line(text, style)
            names = {task: job.model.name for task, (job, _) in self._tasks.items()}
            if not received:
                self._watch.at_work({name: news.works.get(name) for name in names.values()})
            elif not cancelled:
                cancelled = True
                self._watch.line("stopping, once the tasks have saved")
                for task in [task for task, name in names.items() if name not in news.works]:
                    self._ray.cancel(task)  # those that have begun end by themselves
            for task in ready:
                job, files = self._tasks.pop(task)
                if self._take(job, task, files):
                    self._await_files(job.model)
                    yield job.model
        if received:
            (name, step), *rest = self._stops.items() or [("", 0)]
            others = (f"step {step:,} of {name}" for name, step in rest)
            raise Interrupted(received[0], step, ", ".join([name, *others]))
        self._watch.at_work({})
        if self._errors:
            raise self._errors[0]

    def _take(self, job: Job, task: Any, files: list[Any]) -> bool:
        """Takes in what became of a task that is over, and says whether that is a complete model."""
        name, comparison, errors = job.model.name, self._comparison, self._ray.exceptions
        folders = [comparison.run_folder(job.model, number) for number in job.numbers]
        try:
            stopped = self._ray.get(task)
            if stopped == UNSEEN:
                self.send(job, self._ray.put([pack(folder) for folder in folders]))
                return False
            for folder, each in zip(folders, files, strict=True):
                unpack(self._ray.get(each), folder)
            if stopped:
                self._stops[name] = stopped
            return stopped is None
        except errors.TaskCancelledError:
            return False
        except errors.RayTaskError as error:  # what the task raised; with its traceback, unless it is one line
            failure = error.cause if isinstance(error.cause, InputError | TrainingError | MemoryError) else error
        except errors.RayError as error:
            why = one_line(str(error).partition("\n")[0])
            failure = TrainingError(f"{name} was lost {_RETRIES + 1} times, the last time because {why}")
        self._errors.append(failure)
        if self._tasks:
            self._watch.line(f"{one_line(failure)}; the other models go on", "yellow")
        return False

    def _await_files(self, model: GridModel) -> None:
        """Waits for what a network's file system shows late."""
        until = time.monotonic() + PATIENCE
        while self._comparison.missing(model):
            if time.monotonic() > until:
                raise TrainingError(f"{model.name} is trained, and its files are not in {self._comparison.folder}")
            time.sleep(_LOOK)


def _options(ray: Any, seeds: int, models: int) -> dict[str, Any]:
    """What a task takes of its node: a GPU or a TPU's chip where the cluster has any, or else cores.

    The last bits of a loss depend on how many devices and threads a process has, so a task has as many as this one,
    whatever cores it takes. Seeds that are fewer share the devices, and such a task takes a core for each.
    """
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    wanted = {*filter(None, settings.get("JAX_PLATFORMS", "").split(","))}
    for name, platforms in (("GPU", {"cuda", "gpu", "rocm"}), ("TPU", {"tpu"})):
        if wanted & platforms or (not wanted and any(each.get(name) for each in nodes)):
            one: dict[str, Any] = {"num_gpus": 1} if name == "GPU" else {"resources": {name: 1}}
            return one | {"num_cpus": 1, "runtime_env": {"env_vars": settings}}
    most = max((int(each.get("CPU", 0)) for each in nodes), default=0) or MOST_CPU_DEVICES
    fair = int(sum(each.get("CPU", 0) for each in nodes)) // models
    config: Any = jax.config
    here = max(config.jax_num_cpu_devices, 1)
    count = min(most, here if seeds < here else max(1, min(fair, here)))
    if "xla_force_host_platform_device_count" not in settings.get("XLA_FLAGS", ""):
        settings["JAX_NUM_CPU_DEVICES"] = str(here)
    settings["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(cores()))  # Ray would set it, and XLA reads it
    return {"num_cpus": count, "runtime_env": {"env_vars": settings}}
