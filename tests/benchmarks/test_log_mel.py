def test_each_form_is_measured(scripts):
    script = scripts("log_mel")
    found = script.differences(script.CLIPS, seconds=0.06)
    assert list(found) == list(script.FORMS)
    sizes, most, means = zip(*found.values(), strict=True)
    assert sizes[0] > sizes[1] > sizes[2]
    assert most[0] < 1e-4 < most[1] < most[2]
    assert all(mean <= largest for mean, largest in zip(means, most, strict=True))
