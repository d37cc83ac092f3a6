"""Figures agree with the table, and a cell looks the same in every comparison."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charlstm.analysis.gradient_reach import reach
from charlstm.compare.results import ModelResult
from charlstm.compare.statistics import furthest_reach
from charlstm.report.entries import Corpus, Entry
from charlstm.report.figures import COLOURS, cell_colours, figures

BUILT_IN = {"lstm": 0, "gru": 1, "rnn": 2}
NAMES = st.sampled_from([*BUILT_IN, "mgu", "ran", "indrnn"]) | st.text(max_size=4)
CELLS = st.sets(NAMES, min_size=1, max_size=COLOURS)

# Falls that come back, far enough from 1 % that rounding decides nothing.
LAYER = st.lists(st.sampled_from([0.0, 1e-5, 0.004, 0.02, 0.5, 1.0, 3.0]), min_size=11, max_size=11)
NORMS = st.lists(LAYER.map(lambda layer: (1.0, *layer)), min_size=1, max_size=3).map(tuple)


def entry(cell: str = "lstm", gradient: tuple[tuple[float, ...], ...] | None = None) -> Entry:
    return Entry(
        result=ModelResult(name=cell, cell=cell, num_layers=1, hidden_size=8, size=8, gradient=gradient),
        corpus=Corpus("made_up", "characters", 8),
        runs=(),
        training=None,
        validation=None,
        compared=True,
    )


@given(NORMS)
def test_a_plotted_gradient_crosses_the_line_where_the_table_says_that_it_reaches(
    norms: tuple[tuple[float, ...], ...],
) -> None:
    (figure,) = figures([entry(gradient=norms)])
    (series,) = figure.series
    lag, beyond = furthest_reach(norms)
    above = series.x[series.y > figure.levels["reach"]]
    assert above[-1] + 1 == (len(norms[0]) if beyond else lag)
    relative = [np.array(layer) / layer[0] for layer in norms if reach(np.array(layer)) == (None if beyond else lag)]
    assert any(np.array_equal(series.y, layer[layer > 0]) for layer in relative)


@given(CELLS)
def test_cells_of_one_comparison_differ_and_built_in_ones_never_change(cells: set[str]) -> None:
    colours = cell_colours(cells)
    assert colours.keys() == cells
    assert len({*colours.values()}) == len(cells)
    assert {cell: colours[cell] for cell in cells & BUILT_IN.keys()} == {
        cell: BUILT_IN[cell] for cell in cells & BUILT_IN.keys()
    }


@given(NAMES.map(str.strip).filter(str.isalnum), st.sets(st.sampled_from([*BUILT_IN])))
def test_a_cell_of_ones_own_keeps_its_colour_beside_any_built_in_cells(cell: str, others: set[str]) -> None:
    assert cell_colours({cell, *others})[cell] == cell_colours([cell])[cell]
    (figure,) = figures([entry(name, ((1.0, 0.5),)) for name in {cell, *others}])
    assert {each.name: each.style.colour for each in figure.series} == cell_colours({cell, *others})
