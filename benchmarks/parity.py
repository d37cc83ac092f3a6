"""Whether contenders do the same work: equal losses and weights after three updates from equal weights and windows.

Each contender is compared with a reference in NumPy float64 that shares no code with any. `python -m benchmarks` does
it before it times, in the environment of what it times, and `--parity` does nothing else.
"""

from functools import cache
from itertools import islice
from typing import Any

import numpy as np

from benchmarks import inputs
from benchmarks.contenders import Contender, Weights, Work
from benchmarks.shapes import Size

SIZE = Size(4, 6, 8, 2, vocabulary=11)
UPDATES = 3
TOLERANCE = 1e-4
"""Between any two contenders; each is within half of it of the reference."""
_SCALE, _HEAD_SCALE = 0.5, 8.0
"""Of the initial weights. The head's lets every gradient be clipped, by factors that differ, and the others' are small
enough for no gate to saturate: Adam magnifies the rounding of a gradient near zero."""


def initial_weights(size: Size = SIZE) -> Weights:
    """Normal values, so that no bias is zero and no two gates are equal."""
    rng = np.random.default_rng(2)
    widths = [size.vocabulary, *[size.hidden] * (size.layers - 1)]
    gates = 4 * size.hidden
    shapes: list[tuple[int, ...]] = [
        shape for width in widths for shape in ((width, gates), (size.hidden, gates), (gates,))
    ]
    shapes += [(size.hidden, size.vocabulary), (size.vocabulary,)]
    scales = [_SCALE] * (len(shapes) - 2) + [_HEAD_SCALE, _SCALE]
    return [
        (scale * rng.standard_normal(shape)).astype(np.float32) for scale, shape in zip(scales, shapes, strict=True)
    ]


def check(contender: Contender) -> Work:
    """Work that compares each way of a contender with the reference, once, and gives the largest difference.

    It raises ValueError where a loss or a weight is off by more than half of the tolerance.
    """

    def run() -> float:
        losses, weights = reference()
        wanted, worst = {"losses": np.array(losses), "weights": _flat(weights)}, 0.0
        for way in contender.train(SIZE).ways:
            work = contender.train(SIZE, weights=initial_weights())  # each way from the first weights
            losses = [work.ways[way]() for _ in range(UPDATES)]
            for what, found in (("losses", np.array(losses)), ("weights", _flat(work.weights[way]()))):
                off = float(np.abs(found - wanted[what]).max())
                if not off <= TOLERANCE / 2:  # not a number is too far, too
                    by = f" by {way}" if way else ""
                    raise ValueError(f"no parity: {what} of {UPDATES} updates{by} are off by {off:.1e}")
                worst = max(worst, off)
        return worst

    return Work(SIZE.characters, {"": cache(run)})


def reference() -> tuple[list[float], Weights]:
    """The losses of the updates, and the weights after them, from the equations in float64."""
    weights = [each.astype(np.float64) for each in initial_weights()]
    first, second = ([np.zeros_like(each) for each in weights] for _ in range(2))
    carry = np.zeros((SIZE.layers, 2, SIZE.batch, SIZE.hidden))
    losses = []
    for number, (ids, targets) in enumerate(islice(inputs.windows(SIZE), UPDATES), 1):
        loss, grads, carry = gradient(weights, ids, targets, carry)
        losses.append(loss)
        norm = np.sqrt(sum((each**2).sum() for each in grads))
        for weight, grad, m, v in zip(weights, grads, first, second, strict=True):
            grad = grad * min(inputs.GRAD_CLIP / norm, 1)
            m += (1 - inputs.B1) * (grad - m)
            v += (1 - inputs.B2) * (grad**2 - v)
            m_hat, v_hat = m / (1 - inputs.B1**number), v / (1 - inputs.B2**number)
            weight -= inputs.LEARNING_RATE * m_hat / (np.sqrt(v_hat) + inputs.EPSILON)
    return losses, weights


def gradient(weights: Weights, ids: Any, targets: Any, carry: Any) -> tuple[float, Weights, Any]:
    """The mean loss of a window [B, T], its gradient, and the carry [L, 2, B, H] of c and h after it."""
    symbols = len(weights[-1])
    shown, after, kept = np.eye(symbols)[ids.T], [], []
    for (c, h), (kernel, recurrent, bias) in zip(carry, _layers(weights), strict=True):
        steps, outputs = [], []
        for x in shown:
            i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4, -1)
            i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
            before, c = (c, h), f * c + i * g
            h = o * np.tanh(c)
            steps.append((x, *before, i, f, g, o, c))
            outputs.append(h)
        kept.append(steps)
        shown = np.stack(outputs)
        after.append((c, h))
    logits = shown @ weights[-2] + weights[-1]
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    odds /= odds.sum(-1, keepdims=True)
    wanted = np.eye(symbols)[targets.T]
    d_logits = (odds - wanted) / targets.size
    grads = [np.einsum("tbh,tbv->hv", shown, d_logits), d_logits.sum((0, 1))]
    d_shown = d_logits @ weights[-2].T
    for steps, (kernel, recurrent, bias) in reversed(list(zip(kept, _layers(weights), strict=True))):
        of_layer = [np.zeros_like(each) for each in (kernel, recurrent, bias)]
        d_c, d_h, d_inputs = 0.0, 0.0, []
        for (x, c_before, h_before, i, f, g, o, c), d_output in reversed(list(zip(steps, d_shown, strict=True))):
            d_h = d_h + d_output
            d_c = d_c + d_h * o * (1 - np.tanh(c) ** 2)
            d_i, d_f = d_c * g * i * (1 - i), d_c * c_before * f * (1 - f)
            d_g, d_o = d_c * i * (1 - g**2), d_h * np.tanh(c) * o * (1 - o)
            d_sums = np.concatenate([d_i, d_f, d_g, d_o], -1)
            for total, part in zip(of_layer, (x.T @ d_sums, h_before.T @ d_sums, d_sums.sum(0)), strict=True):
                total += part
            d_inputs.append(d_sums @ kernel.T)
            d_c, d_h = d_c * f, d_sums @ recurrent.T
        d_shown = np.stack(d_inputs[::-1])
        grads = of_layer + grads
    return float(-np.log((odds * wanted).sum(-1)).mean()), grads, np.array(after)


def _flat(weights: Weights) -> np.ndarray:
    return np.concatenate([each.ravel() for each in weights])


def _layers(weights: Weights) -> list[tuple[np.ndarray, ...]]:
    return list(zip(weights[:-2:3], weights[1:-2:3], weights[2:-2:3], strict=True))


def _sigmoid(values: Any) -> Any:
    return (1 + np.tanh(values / 2)) / 2
