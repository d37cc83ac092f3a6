# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A language model, one character at a time
#
# This notebook follows the language-modelling chapter of a deep-learning book, from its first example to a network that
# writes in the manner of *Anna Karenina*. It builds each part by hand before it uses the one in `charlstm`, checks that
# the two agree, and ends with the chapter's two claims about recurrent networks as measurements.
#
# Install what it needs with `pip install -e '.[demo,docs]'`. On two CPU cores it runs in about a minute.

# %%
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import charlstm
from charlstm.analysis import recall
from charlstm.analysis.gradient_reach import gradient_reach

charlstm.prepare()  # one device for each CPU core, and a cache of compiled programs
plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. HELLO
#
# A language model says which character comes next. The word "hello" holds four examples of that: after `h` comes `e`,
# after `he` comes `l`, after `hel` another `l`, and after `hell` an `o`. A network that reads `hell` from left to right
# is therefore asked for `ello`: the targets are the inputs, one character later.

# %%
word = "hello"
inputs, targets = word[:-1], word[1:]
for t, target in enumerate(targets):
    print(f"after {inputs[: t + 1]!r:7} comes {target!r}")

# %% [markdown]
# The third and the fourth example both read an `l`, and have different answers. No table from one character to the next
# can get both right. The network needs to know what came before, and a recurrent network keeps it in a state that it
# hands from step to step.
#
# ## 2. Characters become ids
#
# A network computes with numbers. The vocabulary is the sorted set of characters in the text, and a character's id is
# its place there. Sorting matters: the same text gives the same ids in every process.

# %%
vocabulary = sorted(set(word))
ids = np.array([vocabulary.index(character) for character in word])
print("vocabulary", vocabulary)
print("ids       ", ids)
print("one-hot   ", np.eye(len(vocabulary), dtype=int)[ids[:-1]].tolist())

# %% [markdown]
# A one-hot vector times a matrix picks one row of the matrix. That is why `charlstm` never builds the vectors: it looks
# the row up.
#
# `charlstm.read_text` does the same to a whole book. The book's text is downloaded once, or read from the folder that
# `CHARLSTM_CORPORA` names; with neither, the King James Bible takes its place.


# %%
def read(batch_size, seq_length):
    try:
        return charlstm.read_text("anna_karenina", batch_size=batch_size, seq_length=seq_length)
    except charlstm.InputError:  # no network and no local copy
        return charlstm.read_text("king_james", batch_size=batch_size, seq_length=seq_length)


data = read(batch_size=50, seq_length=64)
beginning = data.train.ids[:60]
print(f"{data.vocabulary.size} characters in the vocabulary")
print(f"{len(data.train):,} to train on, then {len(data.validation):,} to validate and as many to test")
print(beginning)
print(repr(data.vocabulary.decode(beginning)))

# %% [markdown]
# ## 3. Batches
#
# The text is cut into B equal rows, which the network reads side by side. A window is the next T characters of every
# row, so that row b of one window goes on where row b of the window before stopped. That makes it right to hand the
# recurrent state from window to window. Targets are the inputs moved by one character, across the windows' edges too.
#
# Here are the first three windows for B = 4 and T = 10. Read along a row: the text continues, and the arrows are the
# carry, which goes with it.

# %%
small = read(batch_size=4, seq_length=10)
windows = list(small.train.windows(steps=3))
figure, axes = plt.subplots(figsize=(11, 2.6))
for number, window in enumerate(windows):
    for row, row_ids in enumerate(window.inputs):
        for column, character in enumerate(small.vocabulary.decode(row_ids)):
            at = number * 10.4 + column
            axes.add_patch(plt.Rectangle((at, -row), 0.94, 0.86, color=f"C{number}", alpha=0.25, lw=0))
            shown = {" ": "␣", "\n": "↵"}.get(character, character)
            axes.text(at + 0.47, -row + 0.4, shown, ha="center", va="center", family="DejaVu Sans Mono", size=11)
    axes.text(number * 10.4 + 5, 1.25, f"window {number}", ha="center", color=f"C{number}", weight="bold")
for row in range(4):
    axes.text(-0.3, -row + 0.4, f"row {row}", ha="right", va="center", color="gray")
    for edge in (10.2, 20.6):
        axes.annotate("", (edge + 0.35, -row + 0.43), (edge - 0.35, -row + 0.43), arrowprops={"arrowstyle": "->"})
axes.set(xlim=(-2.2, 31), ylim=(-3.2, 1.8))
axes.axis("off")
plt.show()

# %%
first, second = windows[:2]
print("inputs, row 0 ", repr(small.vocabulary.decode(first.inputs[0])))
print("targets, row 0", repr(small.vocabulary.decode(first.targets[0])))
assert (first.targets[:, :-1] == first.inputs[:, 1:]).all()  # inside a window
assert (first.targets[:, -1] == second.inputs[:, 0]).all()  # and across its edge

# %% [markdown]
# ## 4. One LSTM cell by hand
#
# A vanilla RNN has one equation, $h_t = \tanh(W x_t + U h_{t-1} + b)$. An LSTM (Hochreiter and Schmidhuber 1997; with
# forget gates, Gers et al. 2000) has a second state, the cell state $c$, that changes by addition, and three gates
# between 0 and 1 that say how much of it to keep, to write and to show:
#
# $$
# \begin{aligned}
# i &= \sigma(W_i x + U_i h + b_i) & f &= \sigma(W_f x + U_f h + b_f) & o &= \sigma(W_o x + U_o h + b_o)\\
# g &= \tanh(W_g x + U_g h + b_g) & c' &= f \odot c + i \odot g & h' &= o \odot \tanh(c')
# \end{aligned}
# $$
#
# In NumPy that is seven lines. The parameters below come from Flax's own `LSTMCell`, which names the kernels `ii`, `hi`
# and so on, and both must give the same numbers.


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(params, carry, x):
    """One step. x [B, D], and the carry (c, h), each [B, H]; returns the carry after it."""
    c, h = carry

    def gate(name):
        recurrent = params[f"h{name}"]
        return x @ params[f"i{name}"]["kernel"] + h @ recurrent["kernel"] + recurrent["bias"]

    i, f, o, g = sigmoid(gate("i")), sigmoid(gate("f")), sigmoid(gate("o")), np.tanh(gate("g"))
    c = f * c + i * g
    return c, o * np.tanh(c)


B, D, H = 2, 4, 3
cell = nn.LSTMCell(features=H)
rng = np.random.default_rng(0)
x = rng.normal(size=(5, B, D)).astype(np.float32)  # five steps
zero = cell.initialize_carry(jax.random.key(0), (B, D))
params = cell.init(jax.random.key(1), zero, x[0])["params"]
by_hand = tuple(map(np.asarray, zero))
by_flax = zero
for x_t in x:
    by_hand = lstm_step(jax.tree.map(np.asarray, params), by_hand, x_t)
    by_flax, _ = cell.apply({"params": params}, by_flax, x_t)
np.testing.assert_allclose(by_hand, by_flax, atol=1e-6)
print(f"h by hand\n{by_hand[1].round(5)}\nh by Flax\n{np.asarray(by_flax[1]).round(5)}")

# %% [markdown]
# ## 5. Layers
#
# Layers stack: the hidden state of one is the input of the next, and each has parameters of its own. A dense layer on
# top turns the last hidden state into one logit for each character. `charlstm.Model` is that stack. It keeps nothing:
# parameters and carry go in, logits and the new carry come out.

# %%
config = charlstm.ModelConfig(cell="lstm", hidden_size=192, num_layers=2, dropout=0.1)
model = charlstm.Model(config, data.vocabulary.size)
params = model.init(jax.random.key(0))
window = next(data.train.windows())
carry = model.zero_carry(batch_size=50)
logits, after = model.apply(params, window.inputs, carry)
print("ids   ", window.inputs.shape)
print("logits", logits.shape)
print("carry ", jax.tree.map(jnp.shape, after))
print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters")

# %% [markdown]
# Since the carry is all that the model remembers, reading a window equals reading its two halves, with the carry handed
# from the first to the second:

# %%
left, middle = model.apply(params, window.inputs[:, :32], carry)
right, end = model.apply(params, window.inputs[:, 32:], middle)
np.testing.assert_allclose(jnp.concatenate([left, right], 1), logits, atol=1e-5)

# %% [markdown]
# ## 6. Dropout
#
# Dropout (Srivastava et al. 2014) sets a part of each layer's output to zero while training, so that no unit can rely
# on another one, and scales up what stays, so that the mean is unchanged. The chapter's `keep_prob` is one minus
# `dropout`. Recurrent connections are left alone (Zaremba et al. 2014). A random key turns dropout on; evaluation and
# sampling pass none.

# %%
keep = 0.9
hidden = np.ones(100_000, np.float32)
mask = (rng.random(hidden.shape) < keep) / keep
print(f"{(mask == 0).mean():.3f} dropped, mean {np.mean(hidden * mask):.3f}")

one, _ = model.apply(params, window.inputs, carry, jax.random.key(1))
same, _ = model.apply(params, window.inputs, carry, jax.random.key(1))
other, _ = model.apply(params, window.inputs, carry, jax.random.key(2))
assert (one == same).all()  # the key decides
assert not (one == other).all()

# %% [markdown]
# ## 7. The loss
#
# Softmax turns logits into probabilities, $p_k = e^{z_k} / \sum_j e^{z_j}$. The loss of a character is $-\ln p$ of
# the one that came, in nats; divided by $\ln 2$ it is in bits. A model that finds all V characters equally likely has
# a loss of $\ln V$, and that is about where an untrained one begins.


# %%
def softmax(z):
    z = np.exp(z - z.max(-1, keepdims=True))  # the maximum cancels, and keeps exp within range
    return z / z.sum(-1, keepdims=True)


probabilities = softmax(np.asarray(logits))
of_target = np.take_along_axis(probabilities, window.targets[..., None], -1)
by_hand = -np.log(of_target).mean()
by_optax = optax.softmax_cross_entropy_with_integer_labels(logits, window.targets).mean()
np.testing.assert_allclose(by_hand, by_optax, rtol=1e-5)
print(f"untrained: {by_hand:.3f} nats a character; ln V is {np.log(data.vocabulary.size):.3f}")

# %% [markdown]
# ## 8. Clipping and Adam
#
# Backpropagation through time multiplies one Jacobian for each step. Such a product can explode, and one bad step then
# undoes a thousand good ones. *Clipping* (Pascanu et al. 2013) scales the gradient down where its norm, taken over all
# parameters together, is above a limit. *Adam* (Kingma and Ba 2015) divides a running mean of the gradients by the root
# of a running mean of their squares, so that every parameter moves at about the learning rate.
#
# By hand, beside Optax:

# %%
limit, rate, b1, b2, eps = 1.0, 0.01, 0.9, 0.999, 1e-8
weights = by_optax = np.array([1.0, -2.0, 3.0], np.float32)
tx = optax.chain(optax.clip_by_global_norm(limit), optax.adam(rate, b1, b2, eps))
tx_state = tx.init(weights)
m = v = np.zeros(3)
for t in range(1, 4):
    gradient = rng.normal(size=3).astype(np.float32) * 2
    clipped = gradient * min(1, limit / np.linalg.norm(gradient))
    m = b1 * m + (1 - b1) * clipped
    v = b2 * v + (1 - b2) * clipped**2
    weights = weights - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    updates, tx_state = tx.update(gradient, tx_state)
    by_optax = optax.apply_updates(by_optax, updates)
    print(f"norm {np.linalg.norm(gradient):.2f} -> {np.linalg.norm(clipped):.2f}, weights {weights.round(4)}")
np.testing.assert_allclose(weights, by_optax, atol=1e-6)

# %% [markdown]
# ## 9. Training
#
# All parts are there. The optimizer is any Optax transformation; `make_train_step` joins model, loss and optimizer in
# one compiled update, and takes care of the carry. The gradient stops at the window's edge, and the carry crosses it:
# this is truncated backpropagation through time.


# %%
def adam(peak, steps):
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, 50, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


def train(model, data, batch_size, tx, steps):
    state = charlstm.init_state(model, tx, batch_size=batch_size, seed=0)
    step = charlstm.make_train_step(model, tx)
    losses = []
    for window in data.train.windows(steps=steps):
        state, metrics = step(state, window)
        losses.append(metrics.loss)
    return state, np.array(losses)


state, losses = train(model, data, batch_size=50, tx=adam(8e-3, 800), steps=800)

# %%
counts = np.bincount(data.train.ids)
frequencies = counts[counts > 0] / counts.sum()
entropy = -(frequencies * np.log(frequencies)).sum()

figure, axes = plt.subplots(figsize=(8, 4))
axes.plot(losses, lw=0.8)
for value, text in (
    (np.log(data.vocabulary.size), "all characters equally likely"),
    (entropy, "frequencies of characters alone"),
):
    axes.axhline(value, color="gray", ls="--", lw=1)
    axes.text(800, value + 0.05, text, ha="right", color="gray")
axes.set(xlabel="update", ylabel="training loss, nats per character", ylim=(1, None))
plt.show()

# %% [markdown]
# `save_run` writes the result as a run, which the command line reads too (`charlstm sample FOLDER`), and `load_run`
# opens it. `evaluate` predicts each character of a held-out split once.

# %%
folder = Path(tempfile.mkdtemp()) / "chapter"
charlstm.save_run(folder, data, model, state)
run = charlstm.load_run(folder)
found = run.evaluate("validation")
print(f"validation: {found.loss:.3f} nats, {found.bits_per_char:.3f} bits per character")

# %% [markdown]
# ## 10. Sampling
#
# To write, the network reads a prime, draws the next character from its softmax, reads that one, and so on. Drawing
# from all V characters makes it stumble now and then over an unlikely one. The chapter draws from the N most likely
# instead:


# %%
def pick_top_n(probabilities, n, rng):
    """An id drawn from the n most likely, their probabilities scaled to a sum of 1."""
    likeliest = np.argsort(probabilities)[-n:]
    kept = probabilities[likeliest]
    return rng.choice(likeliest, p=kept / kept.sum())


prime = "The "
one_row, carry = run.vocabulary.encode(prime)[None].astype(np.int32), run.model.zero_carry(1)
logits, carry = run.model.apply(run.params, one_row, carry)
probabilities = softmax(np.asarray(logits)[0, -1].astype(np.float64))
for place in np.argsort(probabilities)[::-1][:5]:
    print(f"{run.vocabulary.decode([place])!r}  {probabilities[place]:.3f}")
print("drawn:", [run.vocabulary.decode([pick_top_n(probabilities, 5, rng)]) for _ in range(10)])

# %% [markdown]
# `run.sample` runs that loop as one compiled program. The same seed gives the same text, and a longer sample begins
# with the shorter one.

# %%
print(run.sample(prime, length=600, top_n=5, temperature=0.8, seed=1))

# %% [markdown]
# Top N and temperature each trade variety for safety. Temperature divides the logits: towards 0 only the most likely
# character is left.

# %%
for temperature in (0.2, 0.6, 1.0):
    print(f"--- temperature {temperature}")
    print(run.sample(prime, length=160, temperature=temperature, seed=1))
shorter = run.sample(prime, length=50, top_n=5, temperature=0.8, seed=1)
assert run.sample(prime, length=100, top_n=5, temperature=0.8, seed=1).startswith(shorter)

# %% [markdown]
# ## 11. Why an LSTM? Two claims
#
# The chapter says that the gradient of a vanilla RNN vanishes, and that an LSTM learns dependences over long
# distances. Both can be measured. The text for it is generated: a country decides a language, 16, 32 or 64 characters
# later, and the sentences between tell nothing.

# %%
recall_data = charlstm.read_text("recall_64", batch_size=32, seq_length=128)
print(recall_data.vocabulary.decode(recall_data.train.ids[:300]))

# %% [markdown]
# Three models with about the same number of parameters learn it.

# %%
trained = {}
for name, hidden_size, peak in (("rnn", 136, 3e-3), ("gru", 75, 1e-2), ("lstm", 64, 1e-2)):
    small_config = charlstm.ModelConfig(cell=name, hidden_size=hidden_size)
    small_model = charlstm.Model(small_config, recall_data.vocabulary.size)
    small_state, small_losses = train(small_model, recall_data, batch_size=32, tx=adam(peak, 1000), steps=1000)
    trained[name] = small_model, small_state.params
    size = sum(leaf.size for leaf in jax.tree.leaves(small_state.params))
    print(f"{name:4} {size:,} parameters, training loss {small_losses[-50:].mean():.3f}")

# %% [markdown]
# **The vanishing gradient.** How much does the hidden state of k steps ago still change the loss of the next character?
# The curve is the norm of $\partial\,\mathrm{loss}(t) / \partial h(t-k)$ against k, as part of its value at k = 0: the
# median over 256 places in the validation text. A path over k steps is a product of k Jacobians, so that a norm falls
# about as the k-th power of some rate (Bengio et al. 1994; Pascanu et al. 2013), and the cell decides the rate.

# %%
figure, axes = plt.subplots(figsize=(8, 4.5))
for name, (small_model, small_params) in trained.items():
    found = gradient_reach(small_model, small_params, recall_data.validation, lags=128)
    (norms,) = found.norms  # one layer
    axes.semilogy(norms / norms[0], label=f"{name}: 1 % after {found.reach()[0]} characters")
axes.axhline(0.01, color="gray", ls="--", lw=1)
axes.set(xlabel="k, characters back", ylabel="gradient in h(t - k), relative", ylim=(1e-16, 3), xlim=(0, 128))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Each curve is close to a straight line on this scale, and the RNN's is by far the steepest: over 64 characters its
# gradient shrinks by more than ten orders of magnitude, where those of the gated cells shrink by three or four. Nothing
# that far back can teach it. An LSTM remembers in c too, and what c carries past h is not part of this gradient.
#
# **Long-range dependence.** Does the model know the language? At the first letter of the language's name, its most
# likely answer among the eight is right or wrong; a guess is right one time in eight. Distance 128 was in no training
# text.

# %%
figure, axes = plt.subplots(figsize=(8, 4))
distances = recall.distances_of("recall_64")
for name, (small_model, small_params) in trained.items():
    found = recall.accuracy(small_model, small_params, recall_data.vocabulary, distances, sentences=512)
    width = {"rnn": 2, "gru": 6, "lstm": 2}[name]  # two curves may lie on top of each other
    axes.plot(distances, found.accuracy, marker="o", markersize=3 + width, lw=width, label=name)
    print(name, [round(value, 2) for value in found.accuracy])
axes.axhline(found.chance, color="gray", ls="--", lw=1)
axes.text(128, found.chance + 0.02, "a guess", ha="right", color="gray")
axes.set_xscale("log", base=2)
axes.set_xticks(distances, labels=map(str, distances))
axes.set(xlabel="characters between country and language", ylabel="part that is right", ylim=(0, 1.05))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Both claims hold here, for one seed and one text. `charlstm compare experiments/recall.py` repeats the second for five
# seeds, and the [page on comparisons](comparison.md) shows both on real text, where the picture is less tidy.
#
# ## 12. What differs from the chapter
#
# The chapter's program is written for TensorFlow 1. `charlstm` computes the same, and mends what was wrong in it:
#
# | the chapter's `CharLSTM` | here |
# | --- | --- |
# | ids follow the order of a Python set, which changes from process to process | the vocabulary is sorted |
# | the last target of a window is the window's own first character | it is the first character of the next window |
# | one cell object stands for all layers of the stack | every layer has parameters of its own, and dropout |
# | loss is reported on the training text alone | held-out splits are measured, every character of them |
# | a prime with an unknown character ends in a `KeyError` | the character is named in one line |
#
# Where to go from here: train on [your own text](own_text.md), [program with charlstm](python.md), or read the
# equations of the three cells in `charlstm/core/cells.py`.
