"""Keys that come again."""

from dalle2_train.data.check.repeats import repeats


def test_repeated_keys_are_found_across_calls():
    with repeats() as seen:
        assert seen.among(["a", "b", "a"]) == ["a"]
        assert seen.among(["c", "b"]) == ["b"]
        assert seen.among(str(number) for number in range(1000)) == []
        assert seen.among(str(number) for number in range(0, 1000, 500)) == ["0", "500"]
