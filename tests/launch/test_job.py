"""A job may be shown to anybody."""

from dataclasses import replace


def test_it_is_shown_without_its_trackings_password(make_job):
    job = replace(make_job("run"), tracking="http://user:hunter2@host")
    assert "hunter2" not in repr(job) and "hunter2" not in repr(job.absolute())
