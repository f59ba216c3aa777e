from __future__ import annotations

import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from emsqrt.cli import main
from emsqrt.race import (
    CONTENDERS,
    Attempt,
    AttemptFiles,
    GnuSort,
    RaceQuery,
    Result,
    Screen,
    disagreeing,
    finals,
    picture,
    race,
    work_for,
)
from emsqrt.race.chart import bars

MIB = 1 << 20
CAP = 64 * MIB


class Made:
    """A contender whose attempts are Python programs; `{target}` is where they write."""

    def __init__(self, name: str, *programs: str, reason: str | None = None) -> None:
        self.name = name
        self._programs = programs
        self._reason = reason

    def version(self) -> str | None:
        return "1.0"

    def why_not(self, work: RaceQuery) -> str | None:
        return self._reason

    def attempts(
        self, work: RaceQuery, cap_bytes: int | None, place: AttemptFiles
    ) -> list[Attempt]:
        return [
            Attempt(f"setting {at}", [sys.executable, "-S", "-c", text.format(target=place.target)])
            for at, text in enumerate(self._programs, 1)
        ]


GREEDY = "held = b'x' * (300 << 20); print(held[:1])"
FAILS = "import sys; print('Loading'); sys.exit('MemoryException: no block of 8 KiB / try more')"
RIGHT = "open('{target}', 'w').write('id,city\\n1,Oslo\\n2,Brno\\n3,\\n')"
WRONG = "open('{target}', 'w').write('id,city\\n1,Oslo\\n2,Brno\\n2,\\n')"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "places.csv"
    path.write_text("id,city\n2,Brno\n1,Oslo\n3,\n")
    return path


def raced(source: Path, *contenders: Made) -> tuple[list[Result], str]:
    work = work_for("sort", source, ["id"])
    out = io.StringIO()
    screen = Screen(out, CAP)
    results = race(work, CAP, contenders, source.parent / "scratch", screen, timeout_seconds=60)
    screen.sums_up(results)
    return results, out.getvalue()


def test_an_engine_over_the_cap_is_killed_and_the_next_setting_is_tried(source: Path) -> None:
    results, printed = raced(source, Made("Greedy", GREEDY, FAILS, RIGHT, FAILS))
    assert [each.well for each in results] == [False, False, True]
    assert results[0].how_it_ended().startswith("killed over the cap at ")
    assert results[1].how_it_ended() == "status 1: MemoryException: no block of 8 KiB / try more"
    assert results[2].how_it_ended().startswith("3 rows, checksum ")
    assert finals(results) == [results[2]]
    assert "(setting 3 of 4)" in printed
    assert not list((source.parent / "scratch").iterdir())


def test_a_wrong_answer_is_reported(source: Path) -> None:
    results, printed = raced(source, Made("Right", RIGHT), Made("Wrong", WRONG))
    assert disagreeing(results) == [("Wrong", "Right")]
    assert "Wrong returned another answer than Right" in printed


def test_a_wrong_answer_is_compared_with_the_first_one_however_quick_it_was(source: Path) -> None:
    slow = "sum(range(3_000_000)); " + RIGHT
    _, printed = raced(source, Made("Right", slow), Made("Wrong", WRONG))
    assert "Wrong returned another answer than Right" in printed


def test_an_engine_that_cannot_run_reports_why(source: Path) -> None:
    results, printed = raced(source, Made("Shy", reason="it only joins"))
    assert results == []
    assert "does not take part: it only joins" in printed


def test_a_peer_that_wins_is_listed_first(source: Path) -> None:
    slow = "sum(range(3_000_000)); " + RIGHT
    _, printed = raced(source, Made("Slow", slow), Made("Failed", FAILS), Made("Quick", RIGHT))
    table = printed[printed.index("wall s") :].splitlines()[1:4]
    assert [line.split()[:2] for line in table] == [["✓", "Quick"], ["✓", "Slow"], ["✗", "Failed"]]


def test_the_picture_shows_every_lane_on_both_grounds(source: Path) -> None:
    results, _ = raced(source, Made("Right <1>", RIGHT), Made("Greedy", GREEDY))
    text = picture("places & more", CAP, results)
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "Right <1> 1.0" in words
    assert any(word is not None and "killed over the cap at" in word for word in words)
    assert "prefers-color-scheme: dark" in text


def test_every_shape_of_the_picture_has_colours_that_every_viewer_knows(source: Path) -> None:
    results, _ = raced(source, Made("Right", RIGHT), Made("Greedy", GREEDY), Made("Bad", WRONG))
    root = ElementTree.fromstring(picture("places", CAP, results))
    shapes = [each for each in root.iter() if each.tag.endswith(("text", "path", "rect"))]
    assert len(shapes) > 12
    for each in shapes:
        colours = {each.get("fill"), each.get("stroke")} - {None, "none"}
        assert colours
        assert all(re.fullmatch("#[0-9a-f]{6}", str(colour)) for colour in colours)
    dark = next(each.text for each in root.iter() if each.tag.endswith("style"))
    assert not re.search(r"var\(|currentColor|light-dark", str(dark))
    kinds = set(re.findall(r"\.(\w+) {", str(dark)))
    assert kinds >= {str(each.get("class")) for each in shapes}


def test_bars_show_usage_under_and_over_the_cap() -> None:
    assert bars([-1, 0, 1, 8, 32, 33], 32) == [
        "▁▁▁▁▁█",
        "    ██",
        "    ██",
        "    ██",
        "  ▁███",
    ]


@pytest.mark.parametrize("live", [True, False])
def test_only_a_terminal_is_drawn_on(source: Path, live: bool) -> None:
    out = io.StringIO()
    screen = Screen(out, CAP, live=live, colour=live)
    made = Made("Right", "import time; time.sleep(0.3); " + RIGHT)
    race(work_for("sort", source, ["id"]), CAP, [made], source.parent / "s", screen)
    assert ("\x1b[" in out.getvalue()) is live


@pytest.mark.parametrize(
    ("verb", "by", "sql"),
    [
        ("sort", ["id:desc"], 'SELECT * FROM l ORDER BY "id" DESC NULLS LAST'),
        ("agg", ["city"], 'SELECT "city", count(*) AS a1, sum(id) AS a2 FROM l GROUP BY "city"'),
        (
            "join",
            ["id"],
            'SELECT l."id", l."city", r."city" AS "city_right" FROM l JOIN r ON l."id" = r."id"',
        ),
    ],
)
def test_all_engines_run_the_same_sql(source: Path, verb: str, by: list[str], sql: str) -> None:
    assert work_for(verb, source, by).sql == sql


def test_gnu_sort_gets_types_and_directions(source: Path) -> None:
    work = work_for("sort", source, ["city:desc", "id"])
    (attempt,) = GnuSort().attempts(work, 64 * MIB, AttemptFiles(Path("out.csv"), Path("spill")))
    assert "-k2,2r -k1,1n" in attempt.settings
    assert GnuSort().why_not(work_for("agg", source)) == "it only sorts"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["places.txt", "sort"], "neither .csv nor .parquet"),
        (["places.csv", "sort", "--by", "id:up"], "'id:up' is neither a name nor name:desc"),
        (["places.csv", "sort", "--engines", "dukdb"], "did you mean duckdb?"),
    ],
)
def test_invalid_arguments_are_refused(
    source: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(source.parent)
    assert main(["race", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.sample(1)
@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sort", "join", "agg"])
def test_real_engines_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    rows = (f"{i * 37 % 501},city {i % 9},{i}.5" for i in range(3000))
    source = tmp_path / "rows.csv"
    source.write_text("\n".join(["id,city,amount", *rows, ""]))
    drawn = tmp_path / "race.svg"
    words = ["race", str(source), verb, "--by", "id", "--cap", "2GiB", "--json"]
    words += ["--engines", "em,duckdb,gnusort", "--svg", str(drawn), "--scratch", str(tmp_path)]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    through = {each["engine"]: each for each in report["attempts"] if each["succeeded"]}
    assert {"EM-√", "DuckDB"} <= through.keys()
    assert len({each["checksum"] for each in through.values()}) == 1
    assert through["EM-√"]["peakBytes"] <= through["EM-√"]["reportedPeakBytes"] * 1.05 + 2 * MIB
    assert "DuckDB" in drawn.read_text()


def test_every_contender_has_a_name_of_its_own() -> None:
    assert len({each.name for each in CONTENDERS}) == len(CONTENDERS)
