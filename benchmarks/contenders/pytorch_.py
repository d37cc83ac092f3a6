"""PyTorch: `nn.LSTM` over whole windows, through cuDNN on a GPU, else on all cores.

On a CPU it runs with and without oneDNN; the faster way counts.

nn.LSTM takes dense inputs, so symbols are rows of an identity matrix: a lookup is cheaper than making one-hot integers.
Adam is the fused one. Of nn.LSTM's two biases, which add up, one stays zero: the other libraries have one.
"""

# pyright: reportMissingImports=false
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import inputs
from benchmarks.contenders import Weights, Work
from benchmarks.shapes import Size
from charlstm.support.process import cores

_LAYER = ("weight_ih", "weight_hh", "bias_ih")
_DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class _Net(nn.Module):
    rows: torch.Tensor

    def __init__(self, size: Size, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.register_buffer("rows", torch.eye(size.vocabulary))
        self.lstm = nn.LSTM(size.vocabulary, size.hidden, num_layers=size.layers)
        self.head = nn.Linear(size.hidden, size.vocabulary)
        for layer in range(size.layers):
            nn.init.zeros_(getattr(self.lstm, f"bias_hh_l{layer}").requires_grad_(False))
        self.to(_DEVICE)

    def forward(self, ids: Any, carry: Any) -> tuple[Any, Any]:
        """Ids [T, B] and (h, c), [L, B, H] each -> logits [T, B, V] and (h, c)."""
        hidden, carry = self.lstm(functional.embedding(ids, self.rows), carry)
        return self.head(hidden), carry

    @property
    def trained(self) -> list[Any]:
        """In the order of `Weights`; the kernels are transposed there."""
        names = [f"{name}_l{layer}" for layer in range(self.lstm.num_layers) for name in _LAYER]
        return [*(getattr(self.lstm, name) for name in names), self.head.weight, self.head.bias]

    @torch.no_grad()
    def load(self, weights: Weights) -> None:
        for parameter, values in zip(self.trained, weights, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(values.T)))

    def weights(self) -> Weights:
        return [parameter.detach().cpu().numpy().T.copy() for parameter in self.trained]

    def cells(self) -> list[Any]:
        """The layers as cells that share the weights: less overhead where T is 1."""
        cells = []
        for layer in range(self.lstm.num_layers):
            width = self.lstm.input_size if layer == 0 else self.lstm.hidden_size
            cell = nn.LSTMCell(width, self.lstm.hidden_size)
            for name in (*_LAYER, "bias_hh"):
                setattr(cell, name, getattr(self.lstm, f"{name}_l{layer}"))
            cells.append(cell)
        return cells


class PyTorch:
    """A contender; see `contenders.Contender`."""

    def __init__(self) -> None:
        torch.set_num_threads(cores())

    def train(self, size: Size, weights: Weights | None = None) -> Work:
        net, carry, windows = _Net(size, 0), _zero_carry(size, size.batch), inputs.windows(size)
        if weights is not None:
            net.load(weights)
        rate, betas = inputs.LEARNING_RATE, (inputs.B1, inputs.B2)
        adam = torch.optim.Adam(net.trained, rate, betas, inputs.EPSILON, fused=True)

        def run() -> float:
            nonlocal carry
            ids, targets = map(_time_major, next(windows))
            adam.zero_grad(set_to_none=True)
            logits, after = net(ids, carry)
            carry = tuple(part.detach() for part in after)
            loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(net.trained, inputs.GRAD_CLIP, foreach=True)
            adam.step()
            return loss.item()

        ways = _ways(run)
        return Work(size.characters, ways, dict.fromkeys(ways, net.weights))

    def evaluate(self, size: Size) -> Work:
        net, carry, windows = _Net(size, 0).eval(), _zero_carry(size, size.batch), inputs.windows(size)

        @torch.inference_mode()
        def run() -> float:
            nonlocal carry
            ids, targets = map(_time_major, next(windows))
            logits, carry = net(ids, carry)
            return functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()

        return Work(size.characters, _ways(run))

    def sample(self, size: Size, streams: int, length: int) -> Work:
        """The prime is read at once; then one character at a time, by nn.LSTM or by its cells."""
        net = _Net(size, 0).eval()
        cells = net.cells()
        prime = _time_major(inputs.prime(size)[None]).repeat(1, streams)

        @torch.inference_mode()
        def by_layers() -> float:
            logits, carry = net(prime, _zero_carry(size, streams))
            drawn = [_draw(logits[-1])]
            while len(drawn) < length:
                logits, carry = net(drawn[-1][None], carry)
                drawn.append(_draw(logits[0]))
            return _length(drawn)

        @torch.inference_mode()
        def by_cells() -> float:
            logits, (h, c) = net(prime, _zero_carry(size, streams))
            carry, drawn = list(zip(h, c, strict=True)), [_draw(logits[-1])]
            while len(drawn) < length:
                hidden = functional.embedding(drawn[-1], net.rows)
                for layer, cell in enumerate(cells):
                    carry[layer] = cell(hidden, carry[layer])
                    hidden = carry[layer][0]
                drawn.append(_draw(net.head(hidden)))
            return _length(drawn)

        return Work(streams * length, {"nn.LSTMCell": by_cells, **_ways(by_layers)})


def _zero_carry(size: Size, batch: int) -> Any:
    zeros = torch.zeros(size.layers, batch, size.hidden, device=_DEVICE)
    return zeros, zeros.clone()


def _time_major(ids: Any) -> Any:
    return torch.from_numpy(ids.T).to(_DEVICE, torch.long)


def _draw(logits: Any) -> Any:
    """Ids [B] from logits [B, V], by an exponential race: the checks of `torch.multinomial` cost more than the draw."""
    weights = functional.softmax(logits / inputs.TEMPERATURE, -1)
    return (weights / torch.empty_like(weights).exponential_()).argmax(-1)


def _length(drawn: list[Any]) -> float:
    """How many ids were drawn, once they are here."""
    return float(torch.stack(drawn).cpu().numel())


def _ways(run: Callable[[], float]) -> dict[str, Callable[[], float]]:
    if _DEVICE.type == "cuda":
        return {"nn.LSTM, cuDNN": run}

    def with_onednn(enabled: bool) -> float:
        torch.backends.mkldnn.enabled = enabled  # oneDNN's former name; its own context manager warns of other devices
        return run()

    return {"nn.LSTM, oneDNN": partial(with_onednn, True), "nn.LSTM, native": partial(with_onednn, False)}
