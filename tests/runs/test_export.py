"""What `charlstm export` writes gives the model's logits to programs that know nothing of charlstm."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import reference
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import CELLS, random_carry, random_ids, random_params, small_model
from safetensors import safe_open
from safetensors.numpy import load_file

from charlstm import config as registry
from charlstm.config import Cell, DataConfig, Experiment, Symbols
from charlstm.core.network import Model
from charlstm.data.vocabulary import Vocabulary
from charlstm.runs.export import NAME, about, export
from charlstm.runs.folder import Fingerprint, Run
from charlstm.runs.loading import TrainedRun
from charlstm.support.errors import InputError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
LETTERS = "In the bgI\nz"

every_model = pytest.mark.parametrize(("cell", "layers"), [(cell, layers) for cell in CELLS for layers in (1, 2, 3)])


def trained(
    folder: Path, model: Model, params: Any, letters: str = LETTERS, symbols: Symbols = "characters"
) -> TrainedRun:
    """A run that never trained: the parameters are what a test says."""
    config = Experiment(data=DataConfig(symbols=symbols), model=model.config)
    run = Run(folder, config, Vocabulary.of(letters), Fingerprint("made_up", "0" * 64, 1))
    return TrainedRun(run, model, params, 7)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and what is said of them, by the library alone."""
    with safe_open(path, "np") as file:
        return load_file(path), json.loads(file.metadata()["charlstm"])


def follow(path: Path, ids: np.ndarray, states: Any) -> np.ndarray:
    """Logits [B, T, V] from a file, in NumPy float64, by docs/export.md alone; states are [B, H] a layer, or (c, h)."""
    tensors, told = read(path)
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    states, logits = list(states), []
    for each in ids.T:
        shown = np.eye(told["vocabulary_size"])[each]
        for layer in range(told["num_layers"]):
            c, h = states[layer] if told["cell"] == "lstm" else (None, states[layer])
            x = shown @ tensors[f"rnn.weight_ih_l{layer}"].T + tensors[f"rnn.bias_ih_l{layer}"]
            w = h @ tensors[f"rnn.weight_hh_l{layer}"].T + tensors[f"rnn.bias_hh_l{layer}"]
            c, shown = gates(told["cell"], x, w, c, h)
            states[layer] = (c, shown) if told["cell"] == "lstm" else shown
        logits.append(shown @ tensors["head.weight"].T + tensors["head.bias"])
    return np.stack(logits, 1)


def gates(cell: str, x: Any, w: Any, c: Any, h: Any) -> tuple[Any, Any]:
    """(c, h) after a step, from what is read and from the hidden state's product."""

    def sigmoid(values: Any) -> Any:
        return 1 / (1 + np.exp(-values))

    if cell == "rnn":
        return None, np.tanh(x + w)
    if cell == "gru":
        (x_r, x_z, x_n), (w_r, w_z, w_n) = np.split(x, 3, -1), np.split(w, 3, -1)
        z = sigmoid(x_z + w_z)
        return None, (1 - z) * np.tanh(x_n + sigmoid(x_r + w_r) * w_n) + z * h
    i, f, g, o = np.split(x + w, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


@every_model
def test_numpy_gives_the_same_logits_without_charlstm(tmp_path: Path, cell: Cell, layers: int):
    model = small_model(cell, layers, hidden=5, vocabulary=len(set(LETTERS)))
    params, ids, carry = random_params(model, layers), random_ids(model, 0, 3, 20), random_carry(model, 1, 3)
    logits = follow(export(trained(tmp_path, model, params)), ids, carry)
    np.testing.assert_allclose(logits, reference.forward(model, params, ids, carry)[0], atol=1e-12)


@every_model
def test_pytorch_gives_the_same_logits(tmp_path: Path, cell: Cell, layers: int):
    torch = pytest.importorskip("torch")
    model = small_model(cell, layers, hidden=9, vocabulary=len(set(LETTERS)))
    kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell]
    size = model.vocabulary_size
    peer = torch.nn.ModuleDict(
        {"rnn": kind(size, 9, num_layers=layers, batch_first=True), "head": torch.nn.Linear(9, size)}
    )

    def stacked(states: Any) -> Any:
        """[L, B, H] from one [B, H] a layer."""
        return torch.from_numpy(np.stack(states))

    apply = jax.jit(model.apply)
    for seed in range(3):
        params, ids, carry = random_params(model, seed), random_ids(model, seed, 4, 50), random_carry(model, seed, 4)
        tensors, _ = read(export(trained(tmp_path, model, params)))
        peer.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
        with torch.no_grad():
            state = stacked(carry) if cell != "lstm" else tuple(map(stacked, reversed(list(zip(*carry, strict=True)))))
            shown = torch.nn.functional.one_hot(torch.from_numpy(ids).long(), size).float()
            theirs = peer["head"](peer["rnn"](shown, state)[0]).numpy()
        ours, _ = apply(params, ids, carry)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
def test_the_page_loads_it_in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: Cell):
    pytest.importorskip("torch")
    blocks = [block.split("```")[0] for block in PAGE.read_text("utf-8").split("```python\n")[1:]]
    (example,) = (block for block in blocks if "safetensors" in block)
    model = small_model(cell, 2, hidden=5, vocabulary=len(set("In the beginning")))
    folder = tmp_path / "runs" / "king_james"
    folder.mkdir(parents=True)
    params = random_params(model, 0)
    found = trained(folder, model, params, "In the beginning")
    export(found)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    ids = found.run.vocabulary.encode("In the beginning")[None]
    ours, _ = jax.jit(model.apply)(params, ids.astype(np.int32), model.zero_carry(1))
    np.testing.assert_allclose(ours, names["logits"].detach().numpy(), atol=1e-4)


@settings(max_examples=30)
@given(
    letters=st.text(st.characters(exclude_categories=()), min_size=1, max_size=30)
    | st.just('\0"\\\n\ud800\udfff\U0001d54f')
)
def test_every_vocabulary_is_read_back(tmp_path_factory: pytest.TempPathFactory, letters: str):
    model = small_model("rnn", vocabulary=len(set(letters)))
    found = trained(tmp_path_factory.mktemp("run"), model, random_params(model, 0), letters)
    tensors, told = read(export(found))
    assert told == about(found)
    assert tuple(told["vocabulary"]) == found.run.vocabulary.characters
    assert len(told["vocabulary"]) == told["vocabulary_size"] == len(tensors["head.bias"])


def test_the_same_model_gives_the_same_bytes_whatever_its_loop(tmp_path: Path):
    files = []
    for number, recurrence in enumerate(["fast", "plain", "fast", "fast"]):
        model = small_model("gru", 2, vocabulary=len(set(LETTERS)), recurrence=recurrence)
        path = tmp_path / f"{number}.safetensors"
        assert export(trained(tmp_path, model, random_params(model, 0)), path) == path
        files.append(path.read_bytes())
    assert len(set(files)) == 1


def test_bytes_and_roundings_are_said(tmp_path: Path):
    model = small_model("lstm", vocabulary=2, dtype="bfloat16")
    tensors, told = read(export(trained(tmp_path, model, random_params(model, 0), "\x80\xff", "bytes")))
    assert (told["symbols"], told["vocabulary"], told["dtype"], told["step"]) == (
        "bytes",
        ["\x80", "\xff"],
        "bfloat16",
        7,
    )
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}


def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path: Path):
    model = small_model("rnn", vocabulary=len(set(LETTERS)))
    found = trained(tmp_path / "run", model, random_params(model, 0))
    found.run.folder.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("kept")
    link = found.run.folder / NAME
    link.symlink_to(precious)
    with pytest.raises(InputError, match="leads out"):
        export(found)
    assert precious.read_text() == "kept" and link.is_symlink()


@pytest.mark.parametrize("name", ["folder.safetensors", "missing/model.safetensors", "model.txt", "folder"])
def test_a_file_that_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, name: str):
    model = small_model("rnn", vocabulary=len(set(LETTERS)))
    for folder in ("folder.safetensors", "folder"):
        (tmp_path / folder).mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=name.split("/")[0]):
        export(trained(tmp_path, model, random_params(model, 0)), tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_a_registered_cell_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """PyTorch has no names for its kernels."""
    monkeypatch.setitem(registry.CELLS, "mgu", nn.MGUCell)
    model = small_model("mgu", vocabulary=len(set(LETTERS)))
    with pytest.raises(InputError, match="the cell of .* is 'mgu'; only rnn, gru, lstm can be exported") as error:
        export(trained(tmp_path, model, model.init(jax.random.key(0))))
    assert str(error.value).isprintable() and not list(tmp_path.iterdir())
