import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sennit_core.errors import UsageError
from sennit_core.logs import configure_logging, get_logger, redact

SECRET = "s3cr3t-0123456789abcdef"


@pytest.fixture
def configured(request: pytest.FixtureRequest) -> Iterator[Callable[..., logging.Handler]]:
    root = logging.getLogger()
    level, handlers = root.level, []

    def configure(*args: Any, **options: Any) -> logging.Handler:
        handlers.append(configure_logging(*args, **options))
        return handlers[-1]

    yield configure
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer {SECRET}, next",
        f"Authorization: Basic {SECRET}",
        f"Authorization: Token {SECRET}",
        f"authorization={SECRET}",
        f"[(b'cookie', b'sennit={SECRET}')]",
        f"GET /?token={SECRET}&x=1 HTTP/1.1",
        f"http://127.0.0.1:8600/#x?a=1&token={SECRET}",
        f"ws://h/.ws?ns=sys&auth={SECRET}",
        f"Cookie: sennit={SECRET}; theme=dark",
        f"set-cookie: sennit={SECRET}; SameSite=Strict; HttpOnly",
        f"{{'headers': {{'cookie': 'a=b; sennit={SECRET}'}}}}",
        f'{{"token": "{SECRET}"}}',
        f'{{"Authorization": "Bearer {SECRET}"}}',
        f"(b'authorization', b'Bearer {SECRET}')",
        f"admin_token={SECRET}",
        f"password = {SECRET}",
        f"SENNIT_TOKEN={SECRET}",
        f"client_secret: '{SECRET}'",
    ],
)
def test_secrets_are_masked(line: str) -> None:
    assert SECRET not in redact(line)
    assert "***" in redact(line)


@pytest.mark.parametrize(
    "line",
    [
        "GET /api/datasets?limit=10 200",
        "tokens are kept in admin.token",
        "the bearer of news",
        "basic aggregates; the basic idea",
        "author=me&x=1",
        "max_tokens=12 tokenizer: x",
        "cut 12 shards of 64.0 MiB",
    ],
)
def test_ordinary_lines_stay(line: str) -> None:
    assert redact(line) == line


def test_text_around_a_secret_stays() -> None:
    assert redact(f"GET /?token={SECRET}&x=1 200") == "GET /?token=***&x=1 200"


@given(st.text(max_size=80))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


def test_json_lines_hold_message_arguments_and_traceback_without_secrets(
    configured: Callable[..., logging.Handler],
) -> None:
    stream = io.StringIO()
    configured("json", "debug", stream=stream)
    try:
        raise ValueError(f"Bearer {SECRET}")
    except ValueError:
        get_logger("lake.ingest").exception("failed for %s", f"/?token={SECRET}")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["logger"]) == ("error", "lake.ingest")
    assert line["message"] == "failed for /?token=***"
    assert "ValueError: Bearer ***" in line["traceback"]
    assert line["time"].endswith("Z")


def test_text_lines_read_well(configured: Callable[..., logging.Handler]) -> None:
    stream = io.StringIO()
    configured("text", stream=stream)
    get_logger("lake").warning("low on %s", "space")
    get_logger("lake").debug("not kept")
    assert stream.getvalue().endswith("Z WARNING lake: low on space\n")
    assert stream.getvalue().count("\n") == 1


def test_text_traceback_is_redacted(configured: Callable[..., logging.Handler]) -> None:
    stream = io.StringIO()
    configured("text", stream=stream)
    try:
        raise ValueError(f"token={SECRET}")
    except ValueError:
        get_logger("lake").exception("failed")
    assert SECRET not in stream.getvalue()
    assert "Traceback" in stream.getvalue()


def test_file_is_made_with_its_folder_and_configuring_again_replaces(
    configured: Callable[..., logging.Handler], tmp_path: Path
) -> None:
    first, second = tmp_path / "logs" / "one.log", tmp_path / "two.log"
    configured(file=first)
    get_logger("a").info("one")
    configured(file=second)
    get_logger("a").info("two")
    assert first.read_text(encoding="utf-8").count("\n") == 1
    assert "two" in second.read_text(encoding="utf-8")


def test_redacting_a_long_line_runs_in_linear_time() -> None:
    line = "a-" * 500_000
    assert redact(line) == line


def test_wrong_format_still_makes_a_line(configured: Callable[..., logging.Handler]) -> None:
    stream = io.StringIO()
    handler = configured("text", stream=stream)
    handler.handle(logging.LogRecord("lake", 30, "lake.py", 1, "%d shards", ("many",), None))
    assert "%d shards ('many',)" in stream.getvalue()


def test_unknown_format_and_level_are_refused() -> None:
    with pytest.raises(UsageError, match="'xml'"):
        configure_logging("xml")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'loud'"):
        configure_logging(level="loud")
