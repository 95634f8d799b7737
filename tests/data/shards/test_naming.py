"""Names in a tar mean to us what they mean to webdataset."""

from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from dalle2_train.data.shards.naming import key_and_extension


@given(st.text("ab./_ \n", max_size=12))
def test_as_webdataset_splits_them(path: str):
    assert key_and_extension(path) == base_plus_ext(path)
