"""Progress of long work: a bar on a terminal, lines with the time that is left in a log file."""

from itertools import count

from regionedit import progress


def test_a_log_file_gets_a_line_every_half_minute_and_one_at_the_end(capsys, monkeypatch):
    seconds = count(0, 20)  # the clock moves by 20 s between two readings
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    assert list(progress.track("abcd", "letters", 4)) == list("abcd")
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["letters: 2 of 4, 1 min left", "letters: 4 of 4, 0 min left", "letters: 4 of 4, 1.7 min"]


def test_what_fails_has_no_last_line(capsys):
    for number in progress.track(range(3), "numbers", 3):
        if number == 1:
            break
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert list(progress.track([1, 2], "pictures", 2)) == [1, 2]
    assert "pictures" in (err := capsys.readouterr().err) and "2/2" in err
