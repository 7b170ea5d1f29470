import re
from pathlib import Path

import keras
import pytest

import keras_kd
from keras_kd import losses
from keras_kd.losses import get
from keras_kd.losses.named import _CLASSES, name_of


def test_every_loss_has_a_name_of_its_own():
    public = {getattr(losses, name) for name in losses.__all__ if name != "get"}
    bases = {losses.DistillationLoss, losses.FeatureLoss, losses.BatchLoss}
    assert set(_CLASSES) == public - bases
    assert len({name_of(one) for one in _CLASSES}) == len(_CLASSES)


@pytest.mark.parametrize("loss", [one for one in _CLASSES if one is not losses.PartialL2])
def test_a_loss_by_name_is_one_with_default_values(loss):
    for name in (loss.__name__, name_of(loss)):
        made = get(name)
        assert type(made) is loss
        assert made.get_config() == loss().get_config()


def test_names_are_plain_words():
    kinds = [losses.SoftTargets, losses.DIST, losses.LogitsMSE, losses.PartialL2]
    names = [name_of(kind) for kind in kinds]
    assert names == ["soft_targets", "dist", "logits_mse", "partial_l2"]


def test_a_loss_is_returned_as_it_is():
    loss = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
    assert get(loss) is loss


def test_a_configuration_gives_its_loss():
    given = losses.SoftTargets(temperature=7.0, outputs=["a"])
    loss = get(keras.saving.serialize_keras_object(given))
    assert type(loss) is losses.SoftTargets
    assert loss.get_config() == given.get_config()


@pytest.mark.parametrize(
    ("given", "close"),
    [("soft_target", "soft_targets"), ("Soft Targets", "soft_targets"), ("hints", "hint")],
)
def test_an_unknown_name_lists_the_close_ones(given, close):
    with pytest.raises(ValueError, match=f"Received distillation loss {given!r}.*") as error:
        get(given)
    expected, fix = str(error.value).split("To fix it: ")
    assert all(repr(name_of(one)) in expected for one in _CLASSES)
    assert type(get(re.search(r"use '(\w+)'", fix)[1])) is type(get(close))


def test_a_loss_whose_arguments_have_no_default_values():
    with pytest.raises(ValueError, match=r"'partial_l2' without margin.*PartialL2\(margin=\.\.\."):
        get("partial_l2")


@pytest.mark.parametrize("given", [None, 4.0, losses.SoftTargets])
def test_other_types(given):
    with pytest.raises(TypeError, match="a distillation loss or its name"):
        get(given)


def test_the_distiller_takes_names(dense_model):
    distiller = keras_kd.Distiller(
        dense_model(2, seed=1), dense_model(2, seed=2), ["soft_targets", losses.DIST()], [1.0, 2.0]
    )
    assert [type(loss) for loss in distiller.distillation_losses] == [
        losses.SoftTargets,
        losses.DIST,
    ]
    distiller.distillation_losses = ["logits_mse", "dist"]
    assert type(distiller.distillation_losses[0]) is losses.LogitsMSE
    with pytest.raises(ValueError, match=r"'logit_mse'.*use 'logits_mse'"):
        keras_kd.Distiller(dense_model(2), dense_model(2), "logit_mse")


def test_abbreviations_are_in_the_index_and_in_the_docstrings():
    page = Path(__file__).parents[2] / "docs" / "losses.md"
    rows = re.findall(
        r'^\| ([\w, ]+) \| `(\w+)` \| `"(\w+)"` \|$', page.read_text(encoding="utf-8"), re.M
    )
    assert {"RKD", "PKT", "CRD", "FSP", "VID"} <= {row[0] for row in rows}
    for abbreviations, name, key in rows:
        assert name_of(getattr(losses, name)) == key
        first = getattr(losses, name).__doc__.splitlines()[0]
        for abbreviation in abbreviations.split(", "):
            assert re.search(rf"\b{abbreviation}\b", first), f"{abbreviation} is not in: {first}"
