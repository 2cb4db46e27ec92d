"""Reliable and clinically significant change: worked values and sums by hand."""

import numpy as np
import pandas as pd
import pytest

import psymech as psm
from psymech.data.reliable_change import difference_error
from psymech.errors import DataError, SpecError

# The measure of Jacobson & Truax (1991, Table 1 and text): patients 40 (7.5), general population 60 (7.5), r = .80.
JT = {"sd": 7.5, "reliability": 0.80}


def test_worked_values_of_jacobson_and_truax():
    cut = psm.clinical_cutoffs(dysfunctional_mean=40, dysfunctional_sd=7.5, functional_mean=60, functional_sd=7.5)
    assert (cut.a, cut.b, cut.c) == (55.0, 45.0, 50.0)
    assert difference_error(**JT) == pytest.approx(4.74, abs=0.005)
    table = psm.reliable_change([32.5], [47.5], **JT, cutoff=cut.c, lower_is_better=False)
    assert table["rci"].item() == pytest.approx(3.16, abs=0.005)
    assert table["status"].item() == "improved"  # beyond error, but 47.5 is not past 50


def test_cutoffs_with_unequal_spread_and_low_scores_good():
    cut = psm.clinical_cutoffs(dysfunctional_mean=16, dysfunctional_sd=5, functional_mean=4, functional_sd=3)
    assert (cut.a, cut.b) == (6.0, 10.0)
    assert cut.c == pytest.approx((3 * 16 + 5 * 4) / 8)  # 8.5: 1.5 SDs from either mean
    assert (16 - cut.c) / 5 == pytest.approx((cut.c - 4) / 3)


def test_status_of_each_kind():
    pre = [20, 20, 20, 20, 9, np.nan]
    post = [8, 12, 18, 30, 1, 5]
    table = psm.reliable_change(pre, post, sd=5, reliability=0.82, cutoff=10)  # S_d = 3, criterion 5.88
    assert table["status"].tolist()[:5] == ["recovered", "improved", "unchanged", "deteriorated", "improved"]
    assert table["status"].isna().tolist() == [False] * 5 + [True]
    mirrored = psm.reliable_change(
        [-x for x in pre], [-x for x in post], sd=5, reliability=0.82, cutoff=-10, lower_is_better=False
    )
    assert mirrored["status"].tolist()[:5] == table["status"].tolist()[:5]


def test_hageman_arrindell_by_the_published_ratio():
    # Data of the tests of the R package clinicalsignificance; formula of Hageman & Arrindell (1999)
    pre = np.array([30, 20, 10, 8, 6, 4, 2.0])
    post = np.array([3, 2, 2, 2, 2, 2, 1.0])
    sd, reliability = pre.std(ddof=1), 0.80
    error = sd * np.sqrt(1 - reliability)
    true = [1 - error**2 / x.var(ddof=1) for x in (pre, post)]  # reliabilities with one standard error of measurement
    s1, s2, r = pre.std(ddof=1), post.std(ddof=1), np.corrcoef(pre, post)[0, 1]
    spread = s1**2 + s2**2 - 2 * s1 * s2 * r
    share = (s1**2 * true[0] + s2**2 * true[1] - 2 * s1 * s2 * r) / spread
    expected = ((post - pre) * share + (post.mean() - pre.mean()) * (1 - share)) / (np.sqrt(share) * np.sqrt(2) * error)
    table = psm.reliable_change(pre, post, sd=sd, reliability=reliability, method="hageman-arrindell")
    np.testing.assert_allclose(table["rci"], expected, rtol=1e-12)
    wide = -expected > 1.65
    assert table["status"].tolist() == np.where(wide, "improved", "unchanged").tolist()
    assert 0 < wide.sum() < 7


def test_hageman_arrindell_recovery_as_the_r_package_has_it():
    # R package clinicalsignificance 2.1.0.9000 (commit 863dc77): calc_cutoff_from_data.cs_ha and calc_rci.cs_ha called
    # with m_clinical=30, m_functional=6, sd_functional=5, reliability=0.8, direction=-1, critical 1.65, and the other
    # means and SDs those of these scores. Its csi is negative on the functional side of a scale where low is better.
    pre, post = [30, 28, 33, 25, 38, 27, 31, 35], [9.5, 2, 4, 15, 20, 1, 26, 33]
    csi = [-4.946834311895, -8.772944718646, -7.752648610179, -2.141020013611, 0.409720257556, -9.283092772879,
           3.470608582956, 7.041644962590]  # fmt: skip
    rci = [-7.68487468026, -9.62334365915, -10.68069037491, -3.98416117510, -6.80375241713, -9.62334365915,
           -2.22191664883, -1.16456993307]  # fmt: skip
    sd = 4.3239366983605
    cutoffs = psm.clinical_cutoffs(
        dysfunctional_mean=30, dysfunctional_sd=sd, functional_mean=6, functional_sd=5, reliability=0.8
    )
    assert cutoffs.c == pytest.approx(19.0523061067, rel=1e-11) and cutoffs.a == pytest.approx(22.2651068896, rel=1e-11)
    options = {"sd": sd, "reliability": 0.8}
    table = psm.reliable_change(pre, post, **options, cutoff=cutoffs.c, method="hageman-arrindell")
    assert table.columns.tolist() == ["pre", "post", "change", "rci", "csi", "status"]
    np.testing.assert_allclose(-table["csi"], csi, rtol=1e-10)
    np.testing.assert_allclose(table["rci"], rci, rtol=1e-10)
    expected = ["recovered"] * 4 + ["improved", "recovered", "improved", "unchanged"]
    assert table["status"].tolist() == expected
    simple = psm.reliable_change(pre, post, **options, cutoff=17)["status"]
    strict = psm.reliable_change(pre, post, **options, cutoff=17, method="hageman-arrindell")["status"]
    assert simple.iloc[3] == "recovered" and strict.iloc[3] == "improved"  # 15: below 17, but not surely in truth
    mirrored = psm.reliable_change(
        [-x for x in pre], [-x for x in post], sd=sd, reliability=0.8, cutoff=-cutoffs.c, method="hageman-arrindell",
        lower_is_better=False,
    )  # fmt: skip
    np.testing.assert_allclose(mirrored["csi"], table["csi"], rtol=1e-12)
    assert mirrored["status"].tolist() == expected


def test_true_cutoff_b_by_hand():
    found = psm.clinical_cutoffs(
        dysfunctional_mean=30, dysfunctional_sd=5, functional_mean=10, functional_sd=5, reliability=0.64
    )  # E = 5 * 0.6 = 3, so that SDs of true scores are 4
    assert (found.a, found.b, found.c) == pytest.approx((22.0, 18.0, 20.0))


def test_scores_after_treatment_without_true_differences_have_no_index():
    with pytest.raises(DataError, match="scores after treatment of 3 patients"):
        psm.reliable_change([30, 20, 10], [2, 2, 2.1], sd=10, reliability=0.8, method="hageman-arrindell", cutoff=5)
    with pytest.raises(SpecError, match="functional_sd"):
        psm.clinical_cutoffs(
            dysfunctional_mean=20, dysfunctional_sd=10, functional_mean=5, functional_sd=4, reliability=0.8
        )


def test_series_are_matched_by_patient():
    pre = pd.Series([20.0, 10.0], index=["A", "B"])
    post = pd.Series([11.0, 5.0], index=["B", "A"])
    table = psm.reliable_change(pre, post, sd=5, reliability=0.82)
    assert table.loc["A", "change"] == -15.0
    assert table.loc["B", "change"] == 1.0


def test_confidence_replaces_the_critical_value():
    options = {"sd": 5, "reliability": 0.82}  # S_d = 3
    assert psm.reliable_change([10], [4.6], **options)["status"].item() == "unchanged"  # 1.80
    assert psm.reliable_change([10], [4.6], **options, confidence=0.90)["status"].item() == "improved"  # 1.645


def test_impossible_requests_are_refused():
    with pytest.raises(psm.SpecError, match="reliability"):
        psm.reliable_change([1.0], [2.0], sd=1, reliability=1.0)
    with pytest.raises(psm.SpecError, match="method"):
        psm.reliable_change([1.0], [2.0], sd=1, reliability=0.8, method="edwards")  # type: ignore[arg-type]
    with pytest.raises(psm.DataError, match="length"):
        psm.reliable_change([1.0, 2.0], [2.0], sd=1, reliability=0.8)
    with pytest.raises(psm.DataError, match="measurement error"):
        psm.reliable_change([5, 6, 7], [4, 5, 6], sd=5, reliability=0.8, method="hageman-arrindell")
    with pytest.raises(psm.SpecError, match="different means"):
        psm.clinical_cutoffs(dysfunctional_mean=5, dysfunctional_sd=1, functional_mean=5, functional_sd=1)
