from keras_kd._tables import aligned


def test_words_begin_at_the_left_and_numbers_end_at_the_right():
    table = aligned(["layer", "weights"], [["conv", "1 000"], ["embedding", "7"]])
    assert table.splitlines() == [
        "layer      weights",
        "conv         1 000",
        "embedding        7",
    ]


def test_a_last_column_of_words_leaves_no_spaces_behind():
    table = aligned(["layer", "note"], [["conv", ""], ["dense", "left alone"]], left=2)
    assert table.splitlines()[1:] == ["conv", "dense  left alone"]


def test_a_table_without_rows_is_its_header():
    assert aligned(["layer"], []) == "layer"
