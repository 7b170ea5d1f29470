"""Which students are trained, how long, and which of them lie on the front."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from keras_kd.devices import Device
from keras_kd.search.forms import Form, Ladder
from keras_kd.search.measuring import Cost
from keras_kd.search.selection import Found, _counts, front, rungs, students_of_teacher


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(40, activation="relu"), layers.Dense(30, activation="relu")]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(3)], name="teacher")


def counting(student):
    """A file with one byte for each weight, and 1,000 more."""
    count = student.count_params()
    return Cost(
        count + 1000,
        count + 1000,
        10 * max(layer.units for layer in student.layers[1:]),
        None,
        count,
    )


class Looks:
    """Counts what is looked at."""

    def __init__(self):
        self.names = []

    def __call__(self, proposal):
        self.names.append(proposal.name)
        return Found(proposal, counting(proposal.build()))


def search(teacher, device, trials, is_over=lambda: False):
    looks = Looks()
    return students_of_teacher(teacher, device, trials, looks, is_over), looks


def test_all_that_is_found_fits_and_is_found_once(teacher):
    device = Device(flash=1700)
    found, _ = search(teacher, device, 8)
    names = [each.proposal.name for each in found]
    assert len(found) == 8
    assert len(set(names)) == 8
    assert all(each.cost.flash_bytes <= 1700 for each in found)


def test_the_largest_form_of_an_arm_is_found_with_few_files(teacher):
    device = Device(flash=1700)
    found, looks = search(teacher, device, 1)
    assert len(looks.names) <= 4
    form = found[0].proposal.form
    larger = min(width for width in Ladder.WIDTHS if width > form.width)
    assert counting(type(form)(width=larger).of(teacher)).flash_bytes > 1700


def test_ram_counts_too(teacher):
    found, _ = search(teacher, Device(flash="1 MB", ram=200), 3)
    assert found
    assert all(each.cost.arena_bytes <= 200 for each in found)


def test_where_no_form_has_a_file_few_are_looked_at(teacher):
    names = []

    def refuse(proposal):
        names.append(proposal.name)
        return Found(proposal, None, "an operator is missing")

    device = Device(flash=1700)
    assert students_of_teacher(teacher, device, 8, refuse, lambda: False) == []
    # The four of one arm, and the whole teacher.
    assert len(names) <= 5 < len(Ladder(teacher).arms) * 4


def test_where_nothing_fits_nothing_is_found(teacher):
    found, looks = search(teacher, Device(flash=900), 4)
    assert found == []
    assert looks.names


def test_forms_beyond_the_number_of_trials_are_looked_at_where_the_first_do_not_fit(teacher):
    def look(proposal):
        size = 500 if proposal.form.tilt > 1 else 5000
        return Found(proposal, Cost(size, size, 0, None, 1))

    found = students_of_teacher(teacher, Device(flash=900), 1, look, lambda: False)
    assert [each.proposal.form.tilt for each in found] == [3.0]


def test_no_more_is_looked_at_when_time_is_over(teacher):
    found, looks = search(teacher, Device(flash=1700), 8, lambda: True)
    assert found == []
    assert looks.names == ["width 1.00"]


def test_rounds_cost_about_the_same():
    assert list(rungs(12, 2, 9)) == [(12, 1), (6, 3), (2, 9)]
    assert list(rungs(8, 2, 9)) == [(8, 3), (2, 9)]
    assert list(rungs(1, 2, 5)) == [(1, 5)]
    assert list(rungs(2, 2, 1)) == [(2, 1)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 30))
def test_rounds_become_smaller_and_longer(trials, finalists, epochs):
    plan = list(rungs(trials, finalists, epochs))
    assert plan[0][0] == trials
    assert plan[-1] == (min(trials, finalists), epochs)
    for (count, length), (fewer, longer) in pairwise(plan):
        assert fewer < count
        assert longer >= length


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12))
def test_the_front_is_what_nothing_dominates(points):
    chosen = front(points)
    for place, (cost, value) in enumerate(points):
        dominated = any((c <= cost and v >= value) and (c, v) != (cost, value) for c, v in points)
        same_before = (cost, value) in points[:place]
        assert (place in chosen) == (not dominated and not same_before)
    assert np.all(np.diff([points[place][0] for place in chosen]) > 0)


@pytest.mark.parametrize(
    "form", [Form(0.4), Form(0.3, 3.0), Form(0.6, 1 / 3, 0, 2, False, True), Form(0.5, level=True)]
)
def test_what_is_counted_is_what_is_built(form):
    keras.utils.set_random_seed(0)
    teacher = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    counts = _counts(Ladder(teacher).channels(form), form)
    kernels = [
        (weight.shape, layer.output.shape[1:])
        for layer in form.of(teacher).layers
        for weight in layer.weights
        if len(weight.shape) > 1
    ]
    products = sum(np.prod(shape) * np.prod(output[:-1]) for shape, output in kernels)
    assert counts.products == products
    assert counts.bytes == sum(np.prod(shape) + 28 * shape[-1] for shape, _ in kernels)
    tensors = [np.prod(layer.output.shape[1:]) for layer in form.of(teacher).layers]
    assert counts.activations == max(a + b for a, b in pairwise(tensors))
