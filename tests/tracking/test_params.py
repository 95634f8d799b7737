from dalle2_train.tracking.params import MAX_VALUE_LENGTH, flatten


def test_nested_mappings_become_dotted_names() -> None:
    recipe = {"model": {"channels": [64, 128], "nested": {"x": None}}, "seed": 0, "a(b)": 1}
    assert flatten(recipe) == {
        "model.channels": "[64, 128]",
        "model.nested.x": "None",
        "seed": "0",
        "a_b_": "1",
    }


def test_long_values_are_short_and_still_differ_at_their_ends() -> None:
    a, b = (flatten({"note": "x" * 5000 + end})["note"] for end in "ab")
    assert len(a) == len(b) == MAX_VALUE_LENGTH
    assert a != b


def test_secrets_are_left_out_and_their_likes_are_kept() -> None:
    flat = flatten(
        {
            "storage": "s3://user:hunter2@host/bucket",
            "s3": {"secret_key": "abc", "access_key": "abc", "token": "abc"},
            "num_text_tokens": 77,
            "tokenizer": "bpe",
        }
    )
    assert "hunter2" not in str(flat)
    assert "abc" not in str(flat)
    assert flat["num_text_tokens"] == "77"
    assert flat["tokenizer"] == "bpe"
