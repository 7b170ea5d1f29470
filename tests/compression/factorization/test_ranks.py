import itertools

import numpy as np
import pytest
from keras import layers

from keras_kd.compression.factorization import ranks
from keras_kd.compression.factorization.candidate import Candidate, Option
from keras_kd.compression.factorization.forms import forms_of


def candidate(name, layer, shape, decay, form="auto"):
    """A layer whose kernel has singular values that fall with the power `decay`."""
    layer.build(shape)
    (first, *_) = forms_of(layer, form)
    matrix = first.unfold(np.random.default_rng(0).normal(size=layer.kernel.shape))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = (1.0 + np.arange(len(values))) ** -decay
    layer.kernel.assign(((left * values) @ right).reshape(layer.kernel.shape))
    return Candidate(name, layer, forms_of(layer, form))


@pytest.fixture(scope="module")
def candidates():
    return [
        candidate("slow", layers.Dense(7), (None, 9), 0.5),
        candidate("fast", layers.Dense(8), (None, 6), 2.0),
        candidate("conv", layers.Conv2D(6, 3), (None, 8, 8, 2), 1.0),
    ]


SIZES = {"slow": 63, "fast": 48, "conv": 108}
BEFORE = 1000


def loss_of(option):
    return -np.log(1 - option.squared_error)


def outcome(decisions):
    """Parameters of the model, and minus the logarithm of the product of what is kept."""
    options = {name: item for name, item in decisions.items() if isinstance(item, Option)}
    saved = sum(SIZES[name] - option.parameters for name, option in options.items())
    return BEFORE - saved, sum(map(loss_of, options.values()))


def all_outcomes(candidates):
    choices = [
        [(SIZES[c.name], 0.0), *((o.parameters, loss_of(o)) for o in c.savings)] for c in candidates
    ]
    rest = BEFORE - sum(SIZES.values())
    for combination in itertools.product(*choices):
        yield rest + sum(size for size, _ in combination), sum(loss for _, loss in combination)


def test_every_target_is_met_and_a_lower_one_makes_no_layer_larger(candidates):
    lowest = min(size for size, _ in all_outcomes(candidates))
    before, lost = dict(SIZES), 0.0
    for target in range(BEFORE - 1, lowest - 1, -1):
        decisions = ranks.by_parameters(candidates, BEFORE, target)
        size, loss = outcome(decisions)
        assert lowest <= size <= target
        assert loss >= lost - 1e-12
        sizes = {
            name: item.parameters if isinstance(item, Option) else SIZES[name]
            for name, item in decisions.items()
        }
        assert all(sizes[name] <= before[name] for name in SIZES)
        before, lost = sizes, loss
    with pytest.raises(ValueError, match=f"at least {lowest}, which rank 1 in every"):
        ranks.by_parameters(candidates, BEFORE, lowest - 1)


def test_nothing_else_of_the_size_loses_less_where_the_last_step_is_whole(candidates):
    everything = list(all_outcomes(candidates))
    steps = sorted(step[0] for c in candidates for step in ranks._steps(c))
    assert len(steps) > 5
    exact = 0
    for target in range(min(size for size, _ in everything), BEFORE):
        size, loss = outcome(ranks.by_parameters(candidates, BEFORE, target))
        least = min(other for other_size, other in everything if other_size <= target)
        assert loss >= least - 1e-12
        # The convex hull of all combinations: what a price for each parameter would choose.
        on_hull = any(
            loss + price * size
            <= min(other + price * other_size for other_size, other in everything) + 1e-12
            for price in steps
        )
        if on_hull:
            exact += 1
            best_of_size = min(other for other_size, other in everything if other_size <= size)
            assert loss == pytest.approx(best_of_size, abs=1e-12)
    # Once for each step, and for every target that the same step still meets.
    assert exact >= len(steps)


def test_a_single_layer_is_cut_no_further_than_it_must():
    single = [candidate("slow", layers.Dense(20), (None, 20), 0.1)]
    decisions = ranks.by_parameters(single, 400, 390)
    assert decisions["slow"].rank == 9


def test_what_costs_nothing_goes_first():
    low_rank = layers.Dense(8)
    low_rank.build((None, 8))
    low_rank.kernel.assign(np.outer(np.arange(8), np.ones(8)))
    both = [
        candidate("slow", layers.Dense(8), (None, 8), 3.0),
        Candidate("low", low_rank, forms_of(low_rank, "auto")),
    ]
    decisions = ranks.by_parameters(both, 128, 127)
    assert decisions["low"].rank == 3
    assert decisions["slow"] == "the target is met without it"
    assert ranks.by_parameters(both, 128, 80)["low"].rank == 1


def test_energy_takes_the_form_of_fewer_parameters(candidates):
    for energy in (0.5, 0.7, 0.8):
        decisions = ranks.by_energy(candidates, energy)
        for layer in candidates:
            enough = [o for o in layer.savings if 1 - o.squared_error >= energy]
            fewest = min((option.parameters for option in enough), default=None)
            chosen = decisions[layer.name]
            if fewest is None:
                assert "takes" in chosen
                assert f"the kernel {SIZES[layer.name]}" in chosen
            else:
                assert chosen.parameters == fewest
                assert 1 - chosen.squared_error >= energy
    assert isinstance(ranks.by_energy(candidates, 0.5)["fast"], Option)
    assert isinstance(ranks.by_energy(candidates, 0.8)["slow"], str)


def test_rank_takes_the_form_of_the_smaller_error(candidates):
    conv = candidates[-1]
    channel, spatial = conv.of_rank(2)
    assert (channel.form.name, spatial.form.name) == ("channel", "spatial")
    chosen = ranks.by_rank([conv], {"conv": 2})["conv"]
    assert chosen.squared_error == min(channel.squared_error, spatial.squared_error)
    assert channel.squared_error != spatial.squared_error


def test_a_rank_that_saves_nothing_leaves_the_layer(candidates):
    decisions = ranks.by_rank(candidates, {"slow": 4, "fast": 3, "conv": 2})
    assert decisions["slow"] == "rank 4 of 7 takes 64 weights, the kernel 63"
    assert (decisions["fast"].rank, decisions["fast"].parameters) == (3, 42)
    assert isinstance(ranks.by_rank(candidates[:1], {"slow": 3})["slow"], Option)
    beyond = ranks.by_rank(candidates[:1], {"slow": 100})["slow"]
    assert beyond.startswith("rank 7 of 7")


def test_no_layer_is_reduced_to_nothing_for_the_sake_of_others():
    # With equal singular values a sum of errors would not mind to drop all of the first layer.
    flat = [candidate(name, layers.Dense(32), (None, 32), 0.0) for name in ("one", "other")]
    decisions = ranks.by_parameters(flat, 2048, 700)
    assert {name: option.rank for name, option in decisions.items()} == {"one": 5, "other": 5}
