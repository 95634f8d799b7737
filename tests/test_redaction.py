"""What is left out of URIs, in texts of all sorts, and what is not."""

import pytest

from dalle2_train.redaction import redact, without_passwords


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://user:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("https://token@host", "https://***@host"),
        ("postgresql://user:hun@ter2@host/db", "postgresql://***@host/db"),
        ("mysql://user:hun/ter2@host/db", "mysql://***@host/db"),
        ("at http://a:b@c and (http://d:e@f:1)", "at http://***@c and (http://***@f:1)"),
        ("https://host/a.tar?X-Amz-Signature=abc&x=1: refused", "https://host/a.tar?***: refused"),
        ("https://host/a.tar?acl&Signature=abc", "https://host/a.tar?***"),
        ("403, url='https://host/a.tar?sig=a%3D'; again", "403, url='https://host/a.tar?***'; again"),
        ("exceeded with url: /a.tar?sig=b/+= (timed out)", "exceeded with url: /a.tar?*** (timed out)"),
    ],
)
def test_users_passwords_and_signatures_are_left_out(text: str, told: str):
    assert redact(text) == redact(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "hdfs://host:8020/run@2",
        "s3://bucket/0000?.tar",
        "sqlite:////home/me@work/mlflow.db",
        "models:/unclip@champion",
        "http://[::1]:5000/run@2",
        "http://host:5000: not let in, ask me@host",
        "which? lr=1",
    ],
)
def test_the_rest_stays(text: str):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("uri", "left"),
    [
        ("hdfs://user:hunter2@host/run@2", "hdfs://user@host/run@2"),
        ("abfss://container@account/run", "abfss://container@account/run"),
        ("hdfs://host:8020/run@2", "hdfs://host:8020/run@2"),
        ("https://host/run?sig=abc", "https://host/run"),
        ("s3://bucket/run", "s3://bucket/run"),
    ],
)
def test_a_place_is_known_by_its_user_and_by_no_password(uri: str, left: str):
    assert without_passwords(uri) == left
