"""What is told of long work."""

from dalle2_train.data.progress import on_stderr


def test_the_time_left_follows_from_the_pace(capsys):
    now = [100.0]
    tell = on_stderr("embed", "shards", clock=lambda: now[0])
    for done, later in ((2, 130.0), (4, 3700.0), (8, 7300.0)):
        now[0] = later
        tell(done, 8)
    tell(2000, None)
    assert capsys.readouterr().err.splitlines() == [
        "embed: 2 of 8 shards, 0:01:30 left",
        "embed: 4 of 8 shards, 1:00:00 left",
        "embed: 8 of 8 shards",
        "embed: 2000 shards",
    ]
