"""Making a human study: balanced, blind, reproducible by its seed, and every omitted case is listed."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regionedit.evaluation.human_study import form as form_module
from regionedit.evaluation.human_study.__main__ import main
from regionedit.evaluation.human_study.assignment import assign
from regionedit.evaluation.human_study.make import make
from tests.human_studies import Drawn, drawn, read_rows, settings, write_systems  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def embedded(path: Path) -> dict:
    """The data of a form, read up to the first end tag, as a browser does."""
    return json.loads(re.search(r'<script type="application/json" id="form">(.*?)</script>', path.read_text(), re.S)[1])


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def spread(counts: Counter, names) -> int:
    numbers = [counts[name] for name in names]
    return max(numbers) - min(numbers)


@examples(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(1, 7), st.integers(1, 6), st.booleans(), st.data())
def test_cases_units_and_sides_are_balanced(count, number_of_cases, raters, pairs, data):
    systems, cases = tuple("abcde"[:count]), [f"c{i}" for i in range(number_of_cases)]
    system_sets = list(combinations(systems, 2)) if pairs else [systems]
    units = [(case, system_set) for case in cases for system_set in system_sets]
    trials = data.draw(st.integers(1, len(units)))
    made = assign("s", cases, system_sets, raters, trials, 0, np.random.default_rng(data.draw(st.integers(0, 99))))
    assert len(made) == raters * trials
    assert spread(Counter(t.case for t in made), cases) <= 1
    assert spread(Counter((t.case, tuple(sorted(t.systems))) for t in made), units) <= 1
    for rater in range(1, raters + 1):
        own = [(t.case, frozenset(t.systems)) for t in made if t.rater == rater]
        assert len(set(own)) == len(own) == trials
    sides = Counter((system, side) for t in made for side, system in enumerate(t.systems))
    for system in systems:
        assert spread(sides, [(system, side) for side in range(len(system_sets[0]))]) <= 1


def test_sides_are_balanced_within_forms_and_cases_too():
    cases = [f"c{i}" for i in range(10)]
    made = assign("s", cases, [("a", "b")], 6, 10, 0, np.random.default_rng(0))
    left = [t for t in made if t.systems[0] == "a"]
    assert len(left) == 30
    assert all(abs(n - 5) <= 1 for n in Counter(t.rater for t in left).values())
    assert all(abs(n - 3) <= 1 for n in Counter(t.case for t in left).values())


def test_order_and_sides_differ_between_raters_and_seeds():
    cases = [f"c{i}" for i in range(12)]
    first, again, other = (
        assign("s", cases, [("a", "b")], 3, 12, 0, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == again != other
    orders = [[t.case for t in first if t.rater == rater] for rater in (1, 2, 3)]
    assert orders[0] != orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[1]) == sorted(cases)


def test_repeats_come_late_and_in_reverse_order():
    made = assign("s", [f"c{i}" for i in range(9)], [("a", "b", "c")], 2, 9, 3, np.random.default_rng(0))
    by_name = {t.name: t for t in made}
    repeats = [t for t in made if t.repeat_of]
    assert len(made) == 2 * 12 and len(repeats) == 6 and len({t.repeat_of for t in repeats}) == 6
    for again in repeats:
        first = by_name[again.repeat_of]
        assert (first.rater, first.case, first.systems[::-1]) == (again.rater, again.case, again.systems)
        assert first.number <= 3 and again.number > 6


def test_more_trials_or_repeats_than_possible_are_refused():
    for trials, repeats, message in ((13, 0, "trials: 13 .* 1 to 12"), (12, 5, "repeats: 5 .* 0 to 4")):
        with pytest.raises(ValueError, match=message):
            assign("s", ["c0", "c1"], [(str(i), "x") for i in range(6)], 1, trials, repeats, np.random.default_rng(0))


def test_the_same_seed_makes_the_same_files(tmp_path):
    systems = write_systems(tmp_path, "9", ("one", "two"))
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(settings(tmp_path, systems, out=str(tmp_path / folder), repeats=2, seed=seed))
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [*(f"form_rater_0{i}.html" for i in range(1, 5)), "key.csv", "study.json", "template.csv"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    names = [{row["trial"] for row in read_rows(tmp_path / folder / "key.csv")} for folder in "abc"]
    assert names[0] == names[1] and not names[0] & names[2], "a trial's name identifies its study"
    make(settings(tmp_path, systems, out=str(tmp_path / "c"), repeats=2, seed=4))
    with pytest.raises(ValueError, match="out: .* holds the key of another study"):
        make(settings(tmp_path, systems, out=str(tmp_path / "c"), repeats=2, seed=3))


def test_forms_key_and_template_agree(tmp_path):
    """A system's folder is the `out` of an evaluation or, as that of `three`, any folder of pictures."""
    systems = write_systems(tmp_path, "9", ("one", "two", "three"))
    for path in (tmp_path / "three" / "pictures").iterdir():
        Image.open(path).save(tmp_path / "three" / f"{path.stem}.webp", lossless=True)
    shutil.rmtree(tmp_path / "three" / "pictures")
    record = make(settings(tmp_path, systems, shown="all", cases=5, repeats=1))
    key, template = (read_rows(tmp_path / "study" / name) for name in ("key.csv", "template.csv"))
    assert [(row["trial"], row["position"]) for row in key] == [(row["trial"], row["position"]) for row in template]
    assert {row["seed"] for row in key} == {"3"} and {row["inside"] + row["followed"] for row in template} == {""}
    cases = {case.id: case for case in Drawn("9")}
    for rater in range(1, 5):
        form = embedded(tmp_path / "study" / f"form_rater_0{rater}.html")
        assert form["positions"] == ["A", "B", "C"] and len(form["trials"]) == 6
        for page in form["trials"]:
            rows = [row for row in key if row["trial"] == page["trial"]]
            source = cases[rows[0]["case"]].request
            assert page["instruction"] == source.instruction
            assert picture(form["pictures"][page["source"]]).tobytes() == source.image.tobytes()
            for row, number in zip(rows, page["pictures"], strict=True):
                (path,) = (tmp_path / row["system"]).rglob(f"{row['case']}.*")
                edited = Image.open(path)
                assert picture(form["pictures"][number]).tobytes() == edited.tobytes(), "small pictures are lossless"
    assert record["raters_per_trial"] == 4 and len(record["cases"]) == 5
    html = (tmp_path / "study" / "form_rater_01.html").read_text()
    assert not re.search(r"https?://|\bsrc=|href=|fetch\(|import\(|@import|url\(", html), "a form is self-contained"
    assert html.count("</script>") == 2, "an instruction cannot close the script tag"
    assert [question["name"] for question in form["questions"]] == ["inside", "followed"]


def test_a_form_is_blind(tmp_path, monkeypatch):
    monkeypatch.setattr(form_module, "LONGER_SIDE", 64)
    monkeypatch.setattr(form_module, "LOSSLESS", 32)
    systems = write_systems(tmp_path / "hidden_place", "3x72", ("zorkmid", "quuxology"))
    for name, folder in systems.items():
        for path in (Path(folder) / "pictures").iterdir():
            metadata = PngInfo()
            metadata.add_text("Software", name)
            edited = Image.open(path).resize((36, 27) if name == "quuxology" else (72, 54))
            edited.save(path, pnginfo=metadata, icc_profile=name.encode())
    make(settings(tmp_path, systems, data="3x72", cases=2, raters=2))
    for path in (tmp_path / "study").glob("form_*.html"):
        form = embedded(path)
        everything = path.read_bytes() + b"".join(base64.b64decode(uri.split(",")[1]) for uri in form["pictures"])
        for word in (b"zorkmid", b"quuxology", b"hidden_place", b"case-", str(tmp_path).encode()):
            assert word not in everything
        assert {picture(uri).size for uri in form["pictures"]} == {(64, 48)}, "sizes would reveal the systems"
        shown = [number for page in form["trials"] for number in (page["source"], *page["pictures"])]
        assert list(dict.fromkeys(shown)) == list(range(6)), "pictures are numbered in order of appearance"
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    assert sorted(record["resized"]) == ["quuxology"] and len(record["resized"]["quuxology"]) == 2


def test_cases_without_every_picture_are_listed(tmp_path, capsys):
    systems = write_systems(tmp_path, "9", ("one", "two"))
    (tmp_path / "one" / "pictures" / "case-2.png").unlink()
    (tmp_path / "two" / "pictures" / "case-3.png").write_bytes(b"no picture")
    (tmp_path / "two" / "pictures" / "case-4.png").unlink()
    (tmp_path / "two" / "failures").mkdir()
    (tmp_path / "two" / "failures" / "case-4.txt").write_text("out of memory\n")
    record = make(settings(tmp_path, systems))
    assert sorted(record["cases"]) == ["case-0", *(f"case-{i}" for i in (5, 6, 7, 8))], "case-1 is not scored"
    assert record["left_out"].keys() == {"case-2", "case-3", "case-4"}
    assert record["left_out"]["case-2"] == "one: no picture" and record["left_out"]["case-4"] == "two: out of memory"
    assert record["left_out"]["case-3"].startswith("two: ") and "case-3.png" in record["left_out"]["case-3"]
    with pytest.raises(ValueError, match=r"cases: 6 requested, but of the benchmark's 8 only 5 .*case-2 \(one: no pic"):
        make(settings(tmp_path, systems, cases=6))
    arguments = ["--systems", *(f"{name}={folder}" for name, folder in systems.items()), "--benchmark", "drawn"]
    assert main(["make", *arguments, "--data", "9", "--out", str(tmp_path / "again"), "--raters", "1"]) == 0
    printed = capsys.readouterr().out
    assert "3 cases left out" in printed and "case-4: two: out of memory" in printed
    assert "fewer than two raters" in printed


def test_a_form_too_large_says_how_many_cases_fit(tmp_path, monkeypatch):
    systems = write_systems(tmp_path, "9", ("one", "two"))
    make(settings(tmp_path, systems))
    each = sum(map(len, embedded(tmp_path / "study" / "form_rater_01.html")["pictures"])) / 8
    monkeypatch.setattr(form_module, "LARGEST_FORM", int(each * 5.5))
    with pytest.raises(ValueError, match="of its 8 cases 5 fit: give --cases 5") as error:
        make(settings(tmp_path, systems, out=str(tmp_path / "large")))
    assert "MB" in str(error.value) and not (tmp_path / "large").exists()
    assert len(make(settings(tmp_path, systems, out=str(tmp_path / "large"), cases=5))["cases"]) == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--systems", "one"], "systems: 'one' is not NAME=DIR"),
        (["--systems", "one=.", "one=."], "systems: two have the same name"),
        (["--systems", "one=nowhere", "two=."], "systems: one: nowhere is not a folder"),
        (["--systems", "one=."], "systems: 1 given, at least 2"),
        (["--systems", *(f"{i}=." for i in range(7)), "--all"], "systems: 7 given, at most 6"),
        (["--systems", "one=.", "two=.", "--benchmark", "none"], "benchmark: 'none' is none of"),
        (["--systems", "one=.", "two=.", "--raters", "0"], "raters: 0, at least 1"),
        (["--systems", "one=.", "two=.", "--cases", "-1"], "cases: -1, at least 0"),
        (["--systems", "one=.", "two=."], "cases: all requested"),
    ],
)
def test_a_bad_argument_is_one_line(arguments, message, tmp_path, capsys):
    defaults = [] if "--benchmark" in arguments else ["--benchmark", "drawn"]
    assert main(["make", *arguments, *defaults, "--data", "9", "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"human_study make: error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["make", "--cases", "x"], ["make", "--pairs", "--all"], ["analyse"], []])
def test_a_mistyped_option_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and capsys.readouterr().err.count("\n") == 1


DRIVER = """
<script>
  const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  if (!Object.keys(state.answers).length) {
    press("Enter");
    KEYS.forEach(press);
    document.activeElement.click();  // the keys have moved the focus to the button Next
    page.querySelectorAll("input")[1].click();
    location.reload();
  } else {
    const at = state.at;
    go(END);
    document.body.textContent = JSON.stringify({ at, csv: csv(), bar: document.getElementById("count").textContent });
  }
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    "design, keys, answers",
    [
        ("likert", "5412", [["position", "inside", "followed"], ["A", "5", "4"], ["B", "1", "2"], ["A", "2", ""]]),
        ("forced_choice", "ba", [["inside", "followed"], ["B", "A"], ["B", ""]]),
    ],
)
def test_a_browser_keeps_answers_over_a_reload(design, keys, answers, tmp_path):
    make(settings(tmp_path, write_systems(tmp_path, "9", ("one", "two")), design=design))
    form = tmp_path / "study" / "form_rater_02.html"
    form.write_text(form.read_text().replace("</html>", DRIVER.replace("KEYS", json.dumps([*keys])) + "</html>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    options += ["--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    ran = subprocess.run([CHROMIUM, *options, "--dump-dom", form.as_uri()], capture_output=True, text=True, timeout=120)
    found = json.loads(re.search(r"<body[^>]*>(\{.*\})\s*</body>", ran.stdout, re.S)[1])
    trials = [row["trial"] for row in read_rows(tmp_path / "study" / "template.csv") if row["rater"] == "02"]
    rows = [line.split(",") for line in found["csv"].splitlines()]
    assert found["at"] == 1 and found["bar"] == "1 of 8 answered"
    assert [row[1] for row in rows[1:]] == trials and {row[0] for row in rows[1:]} == {"02"}
    assert [row[2:] for row in rows[: len(answers)]] == answers
