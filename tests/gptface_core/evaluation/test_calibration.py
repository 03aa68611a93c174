from __future__ import annotations

import numpy as np
import pytest

from gptface_core.evaluation.calibration import calibration, confusion


def test_calibration_by_hand() -> None:
    """Four at 0.95 of which three are true: 0.2 off; one at 0.05 that is not: 0.05 off."""
    found = calibration(np.array([0.95, 0.95, 0.95, 0.95, 0.05]), np.array([True, True, True, False, False]))
    assert found["bins"][0] == {"predicted": pytest.approx(0.05), "observed": 0.0, "samples": 1}
    assert found["bins"][1] == {"predicted": pytest.approx(0.95), "observed": 0.75, "samples": 4}
    assert found["error"] == pytest.approx((4 * 0.2 + 0.05) / 5)


def test_certainty_has_a_bin_and_honest_probabilities_have_no_error() -> None:
    assert calibration(np.array([1.0, 0.0]), np.array([True, False]))["error"] == 0
    rng = np.random.default_rng(0)
    told = rng.random(20_000)
    happened = rng.random(20_000) < told
    assert calibration(told, happened)["error"] < 0.015 < 0.2 < calibration(told**4, happened)["error"]


def test_confusion_has_true_classes_in_rows() -> None:
    found = confusion(np.array(["red", "red", "black"]), np.array(["red", "grey", "black"]))
    assert found == {"classes": ["black", "grey", "red"], "confusion": [[1, 0, 0], [0, 0, 0], [0, 1, 1]]}
