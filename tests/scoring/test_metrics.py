"""Every measure against another way to compute it."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from sklearn import metrics as sk
from support import LABELS, draw_scores

from ferbatch.core.records import NONE, UNIT
from ferbatch.report.words import words
from ferbatch.scoring.agreement import Votes, agreement
from ferbatch.scoring.bootstrap import margins
from ferbatch.scoring.calibration import point
from ferbatch.scoring.comparison import compare
from ferbatch.scoring.measures import wilson
from ferbatch.scoring.metrics import confusion_matrix, measures, per_label, table
from ferbatch.scoring.outcomes import Outcomes

SCORES = draw_scores(3_000)
P = SCORES.probabilities / UNIT
FOUND = measures(SCORES)


def test_the_table_is_scikit_learns_to_the_character() -> None:
    truth, predicted = ([LABELS[at] for at in side] for side in (SCORES.truth, SCORES.predicted))
    wanted = sk.classification_report(truth, predicted, labels=LABELS)
    assert table(confusion_matrix(SCORES), LABELS) == wanted.strip("\n")


def test_rates_and_averages_are_scikit_learns() -> None:
    report = sk.classification_report(SCORES.truth, SCORES.predicted, target_names=LABELS, output_dict=True)
    assert FOUND.accuracy.value == report["accuracy"]
    assert FOUND.balanced_accuracy.value == pytest.approx(
        sk.balanced_accuracy_score(SCORES.truth, SCORES.predicted), abs=1e-15
    )
    for label, of_label in FOUND.labels.items():
        for name, measure in (
            ("precision", of_label.precision),
            ("recall", of_label.recall),
            ("f1-score", of_label.f1),
        ):
            assert measure.value == pytest.approx(report[label][name], abs=1e-15)
        assert of_label.support == report[label]["support"]
    for name, averages in (("macro avg", FOUND.macro_avg), ("weighted avg", FOUND.weighted_avg)):
        found = (averages.precision.value, averages.recall.value, averages.f1.value)
        assert found == pytest.approx([report[name][part] for part in ("precision", "recall", "f1-score")], abs=1e-15)
    np.testing.assert_array_equal(FOUND.confusion_matrix, sk.confusion_matrix(SCORES.truth, SCORES.predicted))


def test_areas_are_scikit_learns() -> None:
    areas = [sk.roc_auc_score(SCORES.truth == at, P[:, at]) for at in range(4)]
    assert [one.roc_auc.value for one in FOUND.labels.values()] == pytest.approx(areas, abs=1e-12)
    assert FOUND.roc_auc.value == pytest.approx(np.mean(areas), abs=1e-12)
    for at, one in enumerate(FOUND.labels.values()):
        wanted = sk.average_precision_score(SCORES.truth == at, P[:, at])
        assert one.average_precision.value == pytest.approx(wanted, abs=1e-12)


def test_nll_clips_at_half_a_digit_and_brier_sums_over_the_labels() -> None:
    of_truth = P[np.arange(len(P)), SCORES.truth]
    assert (of_truth == 0).any()
    assert FOUND.nll.value == pytest.approx(np.mean([-math.log(max(p, 5e-5)) for p in of_truth]), rel=1e-12)
    assert FOUND.brier.value == pytest.approx(((P - np.eye(4)[SCORES.truth]) ** 2).sum(1).mean(), rel=1e-12)


def test_ece_is_the_mean_gap_over_fifteen_bins_closed_above() -> None:
    confidence, right = P.max(1), SCORES.predicted == SCORES.truth
    gap = 0.0
    for at, found in enumerate(FOUND.calibration):
        inside = np.array([(at * UNIT < c * 15) and (c * 15 <= (at + 1) * UNIT) for c in (confidence * UNIT).round()])
        assert found.n == inside.sum()
        if found.n:
            gap += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
            assert found.accuracy.value == right[inside].mean()
    assert FOUND.ece.value == pytest.approx(gap, abs=1e-12)
    edge = Outcomes(LABELS, np.zeros(1, np.int16), np.zeros(1, np.int16), np.array([[6000, 4000, 0, 0]], np.uint16))
    assert [one.n for one in measures(edge).calibration].index(1) == 8  # (8/15, 9/15]: 0.6 closes its bin


def test_ece_by_chance_is_what_honest_labels_show() -> None:
    rng = np.random.default_rng(5)
    honest = []
    for _ in range(100):  # labels that are right exactly as often as their confidence says
        right = rng.random(3_000) < SCORES.confidence / UNIT
        truth = np.where(right, SCORES.predicted, (SCORES.predicted + 1) % 4).astype(np.int16)
        honest.append(measures(Outcomes(LABELS, truth, SCORES.predicted, SCORES.probabilities)).ece.value)
    assert FOUND.ece_by_chance.value == pytest.approx(np.mean(honest), rel=0.08)
    assert FOUND.ece_by_chance.interval_95 == pytest.approx(np.percentile(honest, (2.5, 97.5)), rel=0.2)
    assert FOUND.ece.value > FOUND.ece_by_chance.interval_95[1]
    assert measures(SCORES.where(np.arange(100))).ece_by_chance.value > 2 * FOUND.ece_by_chance.value


def test_confidence_is_called_off_only_where_chance_does_not_explain_it() -> None:
    assert "It is too sure of itself" in words(FOUND, None)[4]
    few = measures(SCORES.where(np.flatnonzero(SCORES.correct)[:5]))  # 5 of 5 right prove nothing
    assert few.accuracy.value > few.mean_confidence.value + 0.1
    assert "no sign of being too sure" in words(few, None)[4]


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (760, None),  # of 1,000 images, each 0.8 sure
        (740, "Warning: 6.0 points lie between these two averages: on images like these"),
        (860, "lets through fewer errors than it promises"),
        (749, "lets through more errors than it promises"),
        (751, None),
    ],
)
def test_the_words_warn_where_confidence_and_accuracy_part_by_more_than_five_points(
    right: int, said: str | None
) -> None:
    sentence = words(measures(_sure(1_000, right)), None)[4]
    assert (said in sentence) if said else ("Warning" not in sentence)


def test_the_words_say_that_few_images_part_by_chance() -> None:
    assert words(measures(_sure(20, 14)), None)[4].endswith("with so few images that may be chance.")


def _sure(n: int, right: int) -> Outcomes:
    """Outcomes of n images of which so many are labelled right, each with a confidence of 0.8."""
    truth = np.zeros(n, np.int16)
    predicted = np.where(np.arange(n) < right, 0, 1).astype(np.int16)
    probabilities = np.array([[8_000, 2_000, 0, 0], [2_000, 8_000, 0, 0]], np.uint16)
    return Outcomes(LABELS, truth, predicted, probabilities[predicted])


def test_wilsons_interval_is_wilsons() -> None:
    z, n, k = norm.ppf(0.975), 128, 94
    p = k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    wanted = tuple((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    assert wilson(k, n) == pytest.approx(wanted)
    for k, n in ((0, 1), (1, 1), (0, 40), (40, 40), (17, 33), (1_871, 2_501)):
        wanted = binomtest(k, n).proportion_ci(0.95, "wilson")
        assert wilson(k, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert FOUND.accuracy.interval_95 == wilson(round(FOUND.accuracy.value * 3_000), 3_000)


def test_bootstrap_intervals_are_as_wide_as_fresh_samples_differ() -> None:
    fresh = [measures(draw_scores(3_000, seed)).macro_avg.f1.value for seed in range(100, 160)]
    low, high = FOUND.macro_avg.f1.interval_95
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(fresh, ddof=1), rel=0.3)
    assert low < FOUND.macro_avg.f1.value < high
    assert measures(SCORES).macro_avg.f1.interval_95 == (low, high)  # the same counts, the same interval
    low, high = FOUND.weighted_avg.recall.interval_95  # accuracy by another name
    assert (low, high) == pytest.approx(FOUND.accuracy.interval_95, abs=3e-3)


def test_every_interval_is_its_own_figures() -> None:
    fresh = [measures(draw_scores(3_000, seed)) for seed in range(200, 260)]
    for of in (lambda f: f.labels["sad"].f1, lambda f: f.labels["surprise"].f1, lambda f: f.balanced_accuracy):
        values = [of(one).value for one in fresh]
        low, high = of(FOUND).interval_95
        assert low < of(FOUND).value < high
        assert (high - low) / 2 == pytest.approx(1.96 * np.std(values, ddof=1), rel=0.35)
    for of in (lambda f: f.nll, lambda f: f.brier, lambda f: f.mean_confidence):
        values = [of(one).value for one in fresh]
        low, high = of(FOUND).interval_95
        assert (high - low) / 2 == pytest.approx(1.96 * np.std(values, ddof=1), rel=0.35)


def test_no_interval_leaves_the_range_of_its_figure() -> None:
    right = np.flatnonzero(SCORES.correct)
    one_each = np.array([right[SCORES.truth[right] == at][0] for at in range(4)])
    found = measures(SCORES.where(one_each))
    assert found.macro_avg.recall.interval_95 == found.balanced_accuracy.interval_95 == (1.0, 1.0)
    for measure in (found.accuracy, found.mean_confidence, found.nll, found.brier):
        low, high = measure.interval_95
        assert 0 <= low <= measure.value <= high
    assert found.mean_confidence.interval_95[1] <= 1


def test_confusions_come_commonest_first_and_curves_as_scikit_learn_draws_them() -> None:
    counts = [one.count for one in FOUND.confusions]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == int((~SCORES.correct).sum())
    for at, one in enumerate(FOUND.labels.values()):
        for threshold, precision, recall in one.curve[::20]:
            given = P[:, at] >= threshold
            assert precision == pytest.approx((SCORES.truth == at)[given].mean())
            assert recall == pytest.approx(given[SCORES.truth == at].mean())
    assert [one.min_confidence for one in FOUND.coverage] == [step / 100 for step in range(101)]
    assert FOUND.coverage[60].coverage.value == (P.max(1) >= 0.6).mean()


def test_the_words_say_what_the_figures_say() -> None:
    said = words(FOUND, None)
    assert len(said) == 5
    assert said[0].startswith(f"{100 * FOUND.accuracy.value:.1f} % of 3,000 images are labelled right")
    assert said[1].startswith(f"Always answering 'happy' would be right for {100 * (SCORES.truth == 0).mean():.1f} %")
    recall = {name: one.recall.value for name, one in FOUND.labels.items()}
    precision = {name: one.precision.value for name, one in FOUND.labels.items()}
    best, worst = max(recall, key=recall.__getitem__), min(recall, key=recall.__getitem__)
    assert f"finds {best} best ({100 * recall[best]:.1f} % of those images) and {worst} worst" in said[2]
    best, worst = max(precision, key=precision.__getitem__), min(precision, key=precision.__getitem__)
    assert f"its label {best} is right in {100 * precision[best]:.1f} % of the cases, its label {worst} in" in said[2]
    first = FOUND.confusions[0]
    assert said[3].startswith(f"Its commonest error is {first.truth} taken for {first.label}: {first.count} of")
    assert said[4].startswith("It is too sure of itself")
    shy = Outcomes(LABELS, SCORES.predicted, SCORES.predicted, SCORES.probabilities)  # always right
    assert words(measures(shy), None)[4].startswith("It is less sure than it could be")
    assert words(measures(shy), None)[2:4] == [
        "It finds 100.0 % of the images of each label.",
        "It makes no mistake here.",
    ]


def test_the_order_of_the_images_changes_no_bit() -> None:
    assert measures(SCORES.where(np.random.default_rng(1).permutation(3_000))) == FOUND


def test_coverage_keeps_what_is_at_least_so_sure() -> None:
    confidence, right = P.max(1), SCORES.predicted == SCORES.truth
    for minimum in (0.0, 0.5, 0.6, 0.97):
        found = point(SCORES, minimum)
        kept = confidence >= minimum
        assert found.coverage.value == kept.mean()
        assert found.accuracy.value == right[kept].mean()
    nothing = point(SCORES.where(confidence < 0.9), 0.95).accuracy
    assert nothing.value is None
    assert "0.95" in str(nothing.reason)


def test_failed_images_count_as_wrong_in_the_second_accuracy_only() -> None:
    predicted = SCORES.predicted.copy()
    predicted[:300] = NONE
    found = measures(Outcomes(LABELS, SCORES.truth, predicted, SCORES.probabilities))
    correct = int((predicted == SCORES.truth).sum())
    assert (found.images, found.failed) == (2_700, 300)
    assert (found.accuracy.value, found.accuracy.n) == (correct / 2_700, 2_700)
    assert (found.accuracy_with_failed.value, found.accuracy_with_failed.n) == (correct / 3_000, 3_000)


def test_undefined_figures_are_none_with_a_reason_and_averages_stay_scikit_learns() -> None:
    known = SCORES.where(SCORES.truth != 3)
    no_surprise = known.where(known.predicted != 1)  # no image is surprise, none is labelled sad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measures(no_surprise)
    surprise, sad = found.labels["surprise"], found.labels["sad"]
    assert (surprise.recall.value, surprise.recall.reason) == (None, "no image is surprise")
    assert (sad.precision.value, sad.precision.reason) == (None, "no image was labelled sad")
    assert sad.recall.value == sad.f1.value == surprise.precision.value == 0
    assert (surprise.roc_auc.value, found.roc_auc.value) == (None, None)
    assert found.roc_auc.reason == "no image is surprise"
    wanted = sk.precision_recall_fscore_support(
        no_surprise.truth, no_surprise.predicted, average="macro", zero_division=0
    )
    macro = (found.macro_avg.precision.value, found.macro_avg.recall.value, found.macro_avg.f1.value)
    assert macro == pytest.approx(wanted[:3], abs=1e-15)
    nothing = measures(SCORES.where(np.zeros(0, np.int64)))
    assert nothing.accuracy.value is None
    assert nothing.accuracy.reason == "no image has a truth"


def test_averages_over_the_truths_labels_stand_beside_those_over_labels_that_no_image_has() -> None:
    labels = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    truth = np.repeat([3, 4, 5, 6], 25).astype(np.int16)
    predicted = truth.copy()
    predicted[[25, 26]] = 0, 2  # two sad ones: angry and fear
    probabilities = np.full((100, 7), 100, np.int16)
    probabilities[np.arange(100), predicted] = UNIT - 600
    found = measures(Outcomes(labels, truth, predicted.astype(np.int16), probabilities))
    assert found.beyond_truth == 2
    assert found.macro_avg.f1.value == pytest.approx(sk.f1_score(truth, predicted, average="macro", zero_division=0))
    wanted = sk.precision_recall_fscore_support(truth, predicted, labels=[3, 4, 5, 6], average="macro")[:3]
    got = found.truth_avg
    assert (got.precision.value, got.recall.value, got.f1.value) == pytest.approx(wanted)
    assert got.recall.interval_95 == found.balanced_accuracy.interval_95
    low, high = got.f1.interval_95
    assert low < got.f1.value < high
    assert (
        "over 6 labels, 2 of which are the truth of no image and count as 0: macro F1 is 0.66" in words(found, None)[-1]
    )
    assert "alone 0.99" in words(found, None)[-1]


def test_where_the_truth_holds_all_labels_nothing_is_said_of_others() -> None:
    assert (FOUND.beyond_truth, FOUND.truth_avg) == (0, FOUND.macro_avg)
    assert len(words(FOUND, None)) == 5


def test_per_label_agrees_with_scikit_learn_on_many_matrices() -> None:
    for seed in range(20):
        matrix = np.random.default_rng(seed).integers(0, 9, (4, 4))
        truth, predicted = (np.repeat(side, matrix.ravel()) for side in np.indices((4, 4)).reshape(2, -1))
        wanted = sk.precision_recall_fscore_support(truth, predicted, labels=range(4), zero_division=0)
        for name, values in zip(("precision", "recall", "f1"), wanted, strict=False):
            np.testing.assert_allclose(per_label(margins(matrix))[name], values)


def test_two_models_are_told_apart_only_where_they_differ() -> None:
    better = draw_scores(3_000, hits=0.6)
    assert (better.truth == SCORES.truth).all()
    found = compare("better", better, "first", SCORES)
    a, b = better.correct, SCORES.correct
    assert (found.only_this_right, found.only_other_right) == ((a & ~b).sum(), (~a & b).sum())
    assert (found.both_right, found.both_wrong) == ((a & b).sum(), (~a & ~b).sum())
    assert found.accuracy.value == pytest.approx(a.mean() - b.mean())
    assert found.more_than_chance
    f1 = [sk.f1_score(s.truth, s.predicted, average="macro") for s in (better, SCORES)]
    assert found.macro_f1.value == pytest.approx(f1[0] - f1[1])
    differences = a.astype(int) - b.astype(int)
    half = 1.96 * differences.std() / len(a) ** 0.5
    low, high = found.accuracy.interval_95
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    accuracies = [sk.balanced_accuracy_score(s.truth, s.predicted) for s in (better, SCORES)]
    assert found.balanced_accuracy.value == pytest.approx(accuracies[0] - accuracies[1])
    same = compare("again", SCORES, "first", SCORES)
    assert (same.p_value, same.more_than_chance, same.accuracy.value) == (1.0, False, 0.0)
    chances = [compare("a", draw_scores(300, s), "b", _resaid(draw_scores(300, s), s)).p_value for s in range(60)]
    assert sum(p < 0.05 for p in chances) <= 8  # two equal models differ by chance alone


def _resaid(outcomes: Outcomes, seed: int) -> Outcomes:
    """An equally good model that errs elsewhere: its labels are those of other images of the same truth."""
    rng = np.random.default_rng(seed)
    predicted = outcomes.predicted.copy()
    for label in range(4):
        which = np.flatnonzero(outcomes.truth == label)
        predicted[which] = predicted[rng.permutation(which)]
    return Outcomes(outcomes.labels, outcomes.truth, predicted, outcomes.probabilities)


def test_votes_tell_the_models_errors_from_the_labels() -> None:
    rows = [  # truth, predicted, votes for the four labels and for anger
        (1, 2, (0, 2, 8, 0, 0)),  # people side with the model
        (1, 2, (0, 8, 2, 0, 0)),  # people side with the truth
        (0, 0, (9, 1, 0, 0, 0)),  # all agree
        (0, 0, (1, 2, 0, 0, 7)),  # people see what is no label
        (3, 3, (5, 0, 0, 5, 0)),  # a tie
        (3, 0, (0, 0, 0, 0, 0)),  # nobody was asked
        (2, 3, (1, 6, 1, 1, 1)),  # three opinions
    ]
    truth, predicted = (np.array([row[at] for row in rows], np.int16) for at in (0, 1))
    probabilities = np.full((7, 4), 1000, np.uint16)
    probabilities[np.arange(7), predicted] = 7000
    scores = Outcomes(LABELS, truth, predicted, probabilities)
    votes = Votes((*LABELS, "anger"), np.array([row[2] for row in rows], float))
    found = agreement(scores, votes, measures(scores).confusions)
    assert (found.images, found.without_votes) == (6, 1)
    assert (found.majority.images, found.majority.ties) == (5, 1)
    assert (found.majority.model.value, found.majority.truth.value) == (2 / 5, 2 / 5)
    labels_only = found.majority_of_labels
    assert (labels_only.images, labels_only.model.value, labels_only.truth.value) == (5, 2 / 5, 2 / 5)
    blame = found.blame
    assert (blame.truth_alone, blame.model_alone, blame.all_agree) == (1, 1, 1)
    assert (blame.people_alone, blame.all_differ, blame.people_see_no_label) == (1, 1, 1)
    assert found.distribution.model_share.value == pytest.approx((0.8 + 0.2 + 0.9 + 0.1 + 0.5 + 0.1) / 6)
    assert found.distribution.truth_share.value == pytest.approx((0.2 + 0.8 + 0.9 + 0.1 + 0.5 + 0.1) / 6)
    spread = np.array([row[2][:4] for row in rows if any(row[2])], float)
    spread /= spread.sum(1, keepdims=True)
    given = probabilities[[0, 1, 2, 3, 4, 6]] / UNIT
    assert found.distribution.overlap.value == pytest.approx(np.minimum(given, spread).sum(1).mean())
    assert found.distribution.cross_entropy.value == pytest.approx(-(spread * np.log(given)).sum(1).mean())
    sad_for_neutral = next(one for one in found.confusions if one.confusion.truth == "sad")
    assert (sad_for_neutral.people_with_model, sad_for_neutral.people_with_truth) == (1, 1)
