"""Train one run: read a text, make or continue the run's folder, and update to the last step.

A run continues from its newest checkpoint as if it had never stopped. Where `jax.distributed` joined several processes,
all of them call `train` and share the rows of a batch; process 0 alone has the run's folder (`peers`, `follow`).
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax
import optax

from charlstm.analysis.settings import under_settings
from charlstm.config import Experiment
from charlstm.core.loss import mean_nats
from charlstm.core.optimizer import learning_rate
from charlstm.core.step import Loss, TrainState
from charlstm.data.dataset import Dataset, Fingerprint
from charlstm.runs.config_file import continued
from charlstm.runs.folder import CHECKPOINTS, METRICS, Run, as_training_errors, make_folder
from charlstm.runs.loading import TrainedRun, load_run
from charlstm.runs.metrics import last_step
from charlstm.runs.models import chain_of, first_state, make_model, options_of, other_backend
from charlstm.runs.steps import latest_of, numbered
from charlstm.runs.transfer import find_origin, load_origin, origin_of, transfer
from charlstm.support.errors import InputError, TrainingError
from charlstm.support.files import user_path
from charlstm.support.lock import only_writer
from charlstm.support.schema import to_dict
from charlstm.training import star
from charlstm.training.follow import follow
from charlstm.training.loop import Callback, Loop, Watch
from charlstm.training.member import Member, open_member
from charlstm.training.peers import make_peers
from charlstm.training.seeds import lay_out, one_run
from charlstm.training.signals import collected


@under_settings
def train(
    experiment: Experiment,
    run_dir: str | os.PathLike[str],
    *,
    tx: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    data: Any = None,
    callbacks: Sequence[Callback] = (),
    allow_change: bool = False,
    init_from: TrainedRun | str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
    signals: bool = False,
) -> TrainState:
    """Train to `experiment.train.steps`, from the start or from where the run in `run_dir` stopped.

    After `jax.distributed.initialize` all processes call it, and train the one run that process 0 asks for. The others
    need the text, at the place that their own `experiment` names, and write nothing.

    Args:
        experiment: every field of the run.
        run_dir: the run's folder, made when missing.
        tx: an optax transformation to use instead of the one that `experiment.optimizer` describes.
        loss: maps logits [B, T, V] and targets [B, T] to a scalar; by default the mean cross-entropy in nats.
        data: what to read instead of `experiment.data`: it has ``.vocabulary`` and ``.train.windows(start)``, which
            gives `Window`s [B, T] from a cursor on, and may have ids ``.validation`` and ``.test``.
        callbacks: each is called as ``callback(step, state, metrics)`` after every update. The next update donates the
            state, so it must not be kept. With several processes its arrays are those of all of them.
        allow_change: whether a run may go on with another learning rate, dropout and such; its config.json records it.
        init_from: a run of the same cell, width and depth, whose parameters a new run begins with, or its folder, of
            which the best checkpoint counts. They are matched by symbol; those of new symbols are fresh.
        watch: is told of the progress; by default nothing is printed.
        signals: whether SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 save and stop the run, from now on, where they are
            not ignored; a second SIGINT or SIGTERM then ends the process. For the main thread alone.

    Returns:
        The state after the last step, in every process.

    Raises:
        InputError: the text, the config or the folder will not do; nothing in the folder was changed.
        TrainingError: the loss is no longer finite, or the system failed, such as on a full disk.
        Interrupted: a signal came; all steps are saved, and the same call goes on.
    """
    if jax.process_index() > 0:
        corpus = experiment.data.corpus
        return follow(corpus, tx=tx, loss=loss, data=data, callbacks=callbacks, signals=signals)
    folder, watch = user_path(run_dir), watch or Watch()
    program = not (tx is None and loss is None and data is None)
    with as_training_errors(folder), collected(signals) as received, ExitStack() as stack:
        config, run, latest, peers = experiment, None, None, make_peers(received)
        with peers.turn() as told, as_training_errors(folder):
            if Run.exists(folder):
                stack.enter_context(only_writer(folder, watch.line))
                run = Run.open(folder)
                if run.program and not program:
                    what = "with an optimizer, a loss or data of its own"
                    raise InputError(f"a program made {folder} {what}; continue it from there")
                if run.newer:
                    watch.line(run.newer)
                latest = latest_of(folder / CHECKPOINTS, numbered(folder / CHECKPOINTS), run.id)
                stands_at = int(min(latest or 0, last_step(folder / METRICS)))
                how: Any = {"allow_change": allow_change, "name": f"the run in {folder}"}
                config = continued(run.config, config, stands_at, **how)
            data = Dataset.read(config.data, watch.line) if data is None else data
            model = make_model(config, len(data.vocabulary), backend=run and run.backend)
            received.check()
            fingerprint = getattr(data, "fingerprint", Fingerprint("", "", 0))
            schedule = learning_rate(config.optimizer, config.train.steps) if tx is None else None
            options = options_of(config)
            layout = lay_out(config, options)
            chain = chain_of(config, layout) if tx is None else tx
            first = partial(first_state, config, model, chain)
            begun, old = None, _old_run(run, latest, init_from)
            if old:
                params, line = transfer(old, config, data.vocabulary, model, (begun := first()).params)
                begun = begun.with_params(params)
                watch.line(line)
            if run:
                run.check_text(fingerprint, data.vocabulary)
                for line in other_backend(run, model):
                    watch.line(line)
            told.update(config=to_dict(config), text=asdict(fingerprint), backend=model.backend)
        with peers.turn():  # in which the others read the text, before there is a folder
            pass
        with peers.turn() as told, as_training_errors(folder):
            received.check()
            if run is None:
                make_folder(folder)
                stack.enter_context(
                    only_writer(folder, watch.line)
                )  # two that begin in one folder do not mix their files
                origin = origin_of(old) if old else None
                how = {"program": program, "init_from": origin, "backend": model.backend}
                run = Run.create(folder, config, data.vocabulary, fingerprint, **how)
            ends_now = config.train.steps < run.config.train.steps
            member, state = open_member(replace(run, config=config), first, layout.devices, watch.line, stack)
            if begun:  # at once, since the old run may be gone when this one is continued
                state = begun
                member.checkpoints.save(0, state, devices=layout.devices)
            # After all that can fail.
            member.run = run.extended(config, int(state.step), program=program, allow_change=allow_change)
            told.update(ends_now=ends_now)
        state = peers.spread(state)
        one = one_run(peers, model, chain, layout, loss or mean_nats, schedule, options)
        loop = Loop([member], one, data, [state], watch, _raise_not_finite, callbacks, peers)
        watch.begin(member.run, data, model, loop.step, layout)
        if trains := ends_now or not loop.was_finished:
            (state,) = loop.run(peers.received)
        if loop.early:
            watch.line(loop.early)
        if not trains:
            more = f"a larger {'--train.patience or ' if loop.early else ''}--train.steps"
            watch.line(f"this run is finished; {more} goes on from step {loop.step:,}")
    star.leave()
    # What shows the end may fail, such as on a full disk that standard output goes to: everything is saved by now.
    watch.end(TrainedRun(member.run, model, state.params, loop.step), data, loop.validation, trained=trains)
    return state


def _old_run(run: Run | None, latest: int | None, init_from: Any) -> TrainedRun | None:
    """The run whose parameters a first state has, if one is to be made and they are not fresh."""
    if run is None:
        return load_run(init_from) if isinstance(init_from, str | os.PathLike) else init_from
    origin = run.init_from
    if init_from is not None:
        path = init_from.run.folder if isinstance(init_from, TrainedRun) else user_path(init_from)
        origin = origin and find_origin(origin, path)
        if origin is None:
            what = f"{run.folder} holds a run that did not begin with the parameters of {path}"
            raise InputError(f"{what}; use another --run-dir, or go on without --init-from")
    return load_origin(origin) if origin and latest is None else None


def _raise_not_finite(member: Member, what: str) -> None:
    latest, optimizer = member.checkpoints.latest(), member.run.config.optimizer
    good = "there is no checkpoint yet" if latest is None else f"the last good checkpoint is of step {latest:,}"
    raise TrainingError(
        f"{what}; {good}; train anew in another --run-dir with a lower --optimizer.learning-rate (now"
        f" {optimizer.learning_rate:g}) or --optimizer.grad-clip (now {optimizer.grad_clip:g})"
    )
