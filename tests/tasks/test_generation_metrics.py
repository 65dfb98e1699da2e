"""FID and Inception Score: the closed forms of Gaussians and probabilities, and what others compute of the same."""

import math

import pytest
import torch
from torch import nn

from foveal.errors import DataError, OptionError, ShapeError
from foveal.tasks.generation import judges
from foveal.tasks.generation.inception_score import InceptionScore
from foveal.tasks.generation.judges import InceptionJudge, check_there, judge_of
from foveal.tasks.generation.moments import Moments, frechet_distance, joined
from foveal.tasks.generation.recipe import EvaluationOptions


def gaussian(mean, covariance):
    """Moments of infinitely many samples, as it were."""
    return Moments(2, torch.tensor(mean, dtype=torch.float64), torch.as_tensor(covariance, dtype=torch.float64))


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussians_along_the_same_axes_are_as_far_apart_as_their_means_and_deviations():
    one = gaussian([0.0, 1.0, -2.0], torch.diag(torch.tensor([1.0, 4.0, 9.0])))
    other = gaussian([3.0, 1.0, 2.0], torch.diag(torch.tensor([16.0, 0.25, 9.0])))
    assert frechet_distance(one, other) == pytest.approx(9 + 16 + (1 - 4) ** 2 + (2 - 0.5) ** 2 + 0, rel=1e-13)


def test_gaussians_of_two_features_have_the_trace_of_the_root_of_a_2_by_2_matrix():
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.6], [-0.6, 3.0]], dtype=torch.float64)
    product = a @ b
    root = math.sqrt(float(product.trace()) + 2 * math.sqrt(float(torch.linalg.det(product))))
    told = frechet_distance(gaussian([0.0, 0.0], a), gaussian([1.0, 2.0], b))
    assert told == pytest.approx(5 + 3 + 4 - 2 * root, rel=1e-13)


def test_singular_covariances_have_their_closed_form():
    u, v = normal(6, 2).unbind(1)
    told = frechet_distance(gaussian([0.0] * 6, u.outer(u)), gaussian([0.0] * 6, v.outer(v)))
    assert told == pytest.approx(float(u @ u + v @ v - 2 * abs(u @ v)), rel=1e-12)
    assert frechet_distance(gaussian([0.0] * 6, u.outer(u)), gaussian([0.0] * 6, torch.zeros(6, 6))) == pytest.approx(
        float(u @ u), rel=1e-12
    )


@pytest.mark.parametrize(("n", "d"), [(1, 4), (3, 40), (40, 3)])
def test_samples_are_at_no_distance_from_themselves_and_at_a_shift_from_shifted_ones(n, d):
    features = 1e3 + normal(n, d)
    own = Moments.of(features)
    assert frechet_distance(own, Moments.of(features.flip(0))) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(own, Moments.of(features + 2)) == pytest.approx(4 * d, rel=1e-9)


def test_samples_of_two_known_gaussians_come_to_their_distance():
    samples = [2 * normal(40_000, 3, seed=1) + 1, normal(40_000, 3, seed=2)]
    assert frechet_distance(*map(Moments.of, samples)) == pytest.approx(3 * 1 + 3 * (2 - 1) ** 2, rel=0.02)


def test_batches_of_any_size_have_the_moments_of_all_their_samples():
    features = 1e4 + normal(23, 5)
    whole = joined([Moments.of(part) for part in features.split([1, 9, 2, 11])])
    torch.testing.assert_close(whole.mean, features.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(whole.covariance, features.T.cov(), rtol=1e-9, atol=1e-12)
    assert Moments.of(features.float()).mean.dtype == torch.float64


def test_the_distance_is_that_of_torch_fidelity_and_torchmetrics():
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    theirs = pytest.importorskip("torchmetrics.image.fid")
    one, other = Moments.of(normal(90, 7)), Moments.of(normal(50, 7, seed=1) @ normal(7, 7, seed=2) + 1)
    mine = frechet_distance(one, other)
    told = [{"mu": each.mean.numpy(), "sigma": each.covariance.numpy()} for each in (one, other)]
    assert mine == pytest.approx(fidelity.fid_statistics_to_metric(*told, False)["frechet_inception_distance"])
    assert mine == pytest.approx(
        float(theirs._compute_fid(one.mean, one.covariance, other.mean, other.covariance)), rel=1e-6
    )


def test_features_that_do_not_fit_or_are_no_numbers_are_refused():
    with pytest.raises(ShapeError, match="both must have as many features, got 2 and 3"):
        frechet_distance(Moments.of(normal(4, 2)), Moments.of(normal(4, 3)))
    with pytest.raises(ShapeError, match=r"features must be \(n, d\) with n at least 1, got \(0, 3\)"):
        Moments.of(torch.zeros(0, 3))
    with pytest.raises(DataError, match="features must be numbers, got NaN or infinity"):
        frechet_distance(Moments.of(normal(4, 2)), Moments.of(normal(4, 2) / 0))


def score(probabilities, splits=1, batch=7):
    own = InceptionScore(len(probabilities), probabilities.shape[1], splits)
    for numbers in torch.arange(len(probabilities)).split(batch):
        own.add(probabilities[numbers], numbers)
    return own.value()


def test_the_inception_score_is_1_where_images_do_not_differ_and_the_classes_where_all_are_certain():
    alike = normal(1, 5).softmax(1).expand(20, 5)
    assert score(alike) == pytest.approx(1, abs=1e-12)
    assert score(torch.eye(5, dtype=torch.float64).repeat(4, 1)) == pytest.approx(5, rel=1e-12)
    # Two classes, one three times as often: exp of the entropy of (3/4, 1/4).
    certain = torch.eye(2, dtype=torch.float64)[[0, 0, 0, 1]]
    assert score(certain) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=1e-12)


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_the_inception_score_is_the_formula_and_that_of_torch_fidelity(splits):
    fidelity = pytest.importorskip("torch_fidelity.metric_isc")
    logits = 3 * normal(47, 6)
    mine = score(logits.softmax(1), splits)
    parts = [logits.softmax(1)[n * 47 // splits : (n + 1) * 47 // splits] for n in range(splits)]
    formula = [(p * (p / p.mean(0)).log()).sum(1).mean().exp() for p in parts]
    if 47 % splits == 0:
        assert mine == pytest.approx(float(torch.stack(formula).mean()), rel=1e-12)
        theirs = fidelity.isc_features_to_metric(logits, splits, shuffle=False)["inception_score_mean"]
        assert mine == pytest.approx(theirs, rel=1e-12)
    else:
        # Sample i is in part i * splits // n, as long as the others to one sample, which is not where theirs are cut.
        part = torch.arange(47) * splits // 47
        own = [logits.softmax(1)[part == n] for n in range(splits)]
        formula = [(p * (p / p.mean(0)).log()).sum(1).mean().exp() for p in own]
        assert mine == pytest.approx(float(torch.stack(formula).mean()), rel=1e-12)


def test_the_inception_score_of_parts_is_that_of_the_whole():
    probabilities = normal(30, 4).softmax(1)
    parts = [InceptionScore(30, 4, 3) for _ in range(2)]
    for own, numbers in zip(parts, torch.arange(30).split([17, 13]), strict=True):
        own.add(probabilities[numbers], numbers)
    assert InceptionScore.summed(parts).value() == pytest.approx(score(probabilities, 3), rel=1e-14)
    with pytest.raises(OptionError, match="splits must be 1 to the 3 samples, got 4"):
        InceptionScore(3, 2, 4)
    with pytest.raises(ShapeError, match=r"probabilities must be \(n, 4\), got \(2, 5\)"):
        parts[0].add(torch.zeros(2, 5), torch.arange(2))


def test_missing_weights_are_named_with_what_they_are_for(tmp_path):
    with pytest.raises(DataError) as told:
        check_there(EvaluationOptions("inception"))
    assert str(told.value) == (
        "train: FID and Inception Score by inception need --evaluation.weights, the file "
        "pt_inception-2015-12-05-6726825d.pth with the weights of that network, got none. Fetch it from the releases "
        "of mseitzer/pytorch-fid, or measure by a classifier of your own: --evaluation.features RUN."
    )
    with pytest.raises(DataError, match=r"that network, there is no file '.*gone.pth'"):
        check_there(EvaluationOptions("inception", str(tmp_path / "gone.pth")))
    (tmp_path / "other.pth").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="other.pth does not hold the weights of the Inception network"):
        judge_of(EvaluationOptions("inception", str(tmp_path / "other.pth")))
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="other.pth does not hold the weights of the Inception network"):
        judge_of(EvaluationOptions("inception", str(tmp_path / "other.pth")))


def test_features_that_are_nowhere_are_refused():
    with pytest.raises(DataError, match="must be inception, the folder of a run .* got 'runs/gone'"):
        check_there(EvaluationOptions("runs/gone"))
    with pytest.raises(DataError, match="got 'small/gan-digits'"):
        check_there(EvaluationOptions("small/gan-digits"))
    with pytest.raises(OptionError, match="--evaluation.weights is for --evaluation.features inception"):
        check_there(EvaluationOptions("small/digits-judge", "some.pth"))


def test_inception_sees_grey_and_colour_as_bytes(monkeypatch):
    seen = []

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            seen.append(images)
            flat = images.float().mean((2, 3))
            return flat, flat

    monkeypatch.setattr(judges, "_inception", lambda path: Network())
    judge = InceptionJudge(None)
    features, probabilities = judge.look(torch.tensor([-1.0, 0.0, 1.0, 1.5]).reshape(1, 1, 2, 2))
    assert seen[0].dtype == torch.uint8
    assert seen[0][0, 2].flatten().tolist() == [0, 128, 255, 255]
    assert features.shape == probabilities.shape == (1, 3)
    assert probabilities.sum() == pytest.approx(1)
    assert judge.classes is None


def test_inception_is_the_network_of_torch_fidelity_with_the_weights_of_the_file(tmp_path, monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    with monkeypatch.context() as made:
        # Its layers with random weights, for want of the file.
        made.setattr(torch, "load", lambda *_, **__: {})
        made.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = fidelity.FeatureExtractorInceptionV3("random", ["2048", "logits_unbiased"], "")
    torch.save(network.state_dict(), path)
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    features, probabilities = judge_of(EvaluationOptions("inception", str(path))).look(images)
    wanted, logits = network(((images + 1) * 127.5).round().to(torch.uint8))
    assert features.shape == (2, 2048)
    assert torch.equal(features, wanted)
    torch.testing.assert_close(probabilities, logits.softmax(1))
