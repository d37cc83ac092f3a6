"""One pass finds what each function finds alone."""

import jax
import numpy as np
import pytest
from reference import random_ids, random_params, small_model

from charlstm.analysis.evaluate import all_nats
from charlstm.analysis.inside.activations import activations, gate_saturation
from charlstm.analysis.inside.survey import survey
from charlstm.analysis.inside.units import unit_features


@pytest.mark.parametrize("rows", [1, 3])
def test_one_pass_finds_what_each_function_finds(rows: int):
    model = small_model("gru", 1)
    params, ids = random_params(model, 0), random_ids(model, 1, 2_000)
    features = {"a symbol": ids == 3}

    def blocks():
        return activations(model, params, ids, rows=rows)

    found = survey(blocks(), ids, features)
    assert found.scores == unit_features(blocks(), features)
    assert found.found_units == len({each.unit for each in found.scores if each.found})
    for name, each in gate_saturation(blocks()).items():
        np.testing.assert_array_equal(found.saturation[name], each)
    saturated = [side for each in found.saturation.values() for side in each]
    assert found.saturated == pytest.approx(sum(side.mean() for side in saturated) / 2)
    if rows == 1:
        np.testing.assert_allclose(found.nats, all_nats(model, params, [ids])[0], atol=1e-5)
        logits = model.apply(params, jax.numpy.asarray(ids[None]), model.zero_carry(1))[0][0, :-1]
        probabilities = np.asarray(jax.nn.softmax(logits))
        assert found.calibration.characters.sum() == len(ids) - 1
        right = (probabilities.argmax(-1) == ids[1:]).sum()
        assert (found.calibration.accuracy * found.calibration.characters).sum() == pytest.approx(right)
        mean = (found.calibration.confidence * found.calibration.characters).sum() / (len(ids) - 1)
        assert mean == pytest.approx(probabilities.max(-1).mean(), rel=1e-5)
