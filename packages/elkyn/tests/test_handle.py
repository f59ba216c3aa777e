"""The pure core of the server: requests in, responses out, with Firebase's words and codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elkyn import ElkynStore
from elkyn.server.handle import handle
from elkyn.server.request import Request, Response

ETAG = {"x-firebase-etag": "true"}


@pytest.fixture(scope="module")
def shared() -> Iterator[ElkynStore]:
    with ElkynStore(mode="memory") as store:
        yield store


@pytest.fixture
def store(shared: ElkynStore) -> ElkynStore:
    shared.delete("/")
    return shared


def ask(
    store: ElkynStore, method: str, path: str, body: Any = None, **more: dict[str, str]
) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return handle(Request(method, path, body=data, **more), store)


def headers(response: Response) -> dict[str, str]:
    return dict(response.headers)


def test_put_replaces_and_echoes_the_stored_value(store: ElkynStore) -> None:
    answer = ask(store, "PUT", "/a/b.json", {"n": {".sv": {"increment": 2}}, "gone": None})
    assert (answer.status, answer.body) == (200, b'{"n":2}')
    assert store.get("/") == {"a": {"b": {"n": 2}}}


def test_get_returns_the_value_or_null_and_never_404(store: ElkynStore) -> None:
    store.set("/a", ["x", {"é": 1.5}])
    assert ask(store, "GET", "/a.json").body == '["x",{"é":1.5}]'.encode()
    assert ask(store, "GET", "/a/1/.json").body == '{"é":1.5}'.encode()
    assert (ask(store, "GET", "/none.json").status, ask(store, "GET", "/.json").status) == (
        200,
        200,
    )
    assert ask(store, "GET", "/none.json").body == b"null"


def test_patch_is_multi_path_and_echoes(store: ElkynStore) -> None:
    store.set("/a", {"b": {"c": 1, "d": 2}, "e": 3})
    answer = ask(store, "PATCH", "/a.json", {"b/c": 9, "/e": None})
    assert (answer.status, json.loads(answer.body)) == (200, {"b/c": 9, "e": None})
    assert store.get("/a") == {"b": {"c": 9, "d": 2}}


def test_post_pushes_and_delete_answers_null(store: ElkynStore) -> None:
    name = json.loads(ask(store, "POST", "/log.json", {"x": 1}).body)["name"]
    assert (len(name), store.get(f"/log/{name}")) == (20, {"x": 1})
    answer = ask(store, "DELETE", "/log.json", b"")
    assert (answer.status, answer.body, store.get("/")) == (200, b"null", None)


@pytest.mark.parametrize("where", ["headers", "query"])
def test_a_post_can_override_the_method(store: ElkynStore, where: str) -> None:
    override = {"x-http-method-override": "PUT"}
    assert ask(store, "POST", "/a.json", 5, **{where: override}).body == b"5"
    assert store.get("/") == {"a": 5}


def test_print_is_pretty_or_silent(store: ElkynStore) -> None:
    pretty = ask(store, "PUT", "/a.json", {"b": 1}, query={"print": "pretty"})
    assert pretty.body == b'{\n  "b": 1\n}'
    silent = ask(store, "GET", "/a.json", query={"print": "silent"})
    assert (silent.status, silent.body) == (204, b"")


def test_shallow_returns_true_for_children_and_values_for_leaves(store: ElkynStore) -> None:
    store.set("/a", {"b": {"c": 1}, "d": 2})
    shallow = {"shallow": "true"}
    assert ask(store, "GET", "/a.json", query=shallow).body == b'{"b":true,"d":true}'
    assert ask(store, "GET", "/a/d.json", query=shallow).body == b"2"
    assert ask(store, "GET", "/none.json", query=shallow).body == b"null"
    both = ask(store, "GET", "/a.json", query={**shallow, "orderBy": '"$key"'})
    assert (both.status, b"shallow" in both.body) == (400, True)


def test_an_etag_is_sent_on_request_and_depends_on_the_value_alone(store: ElkynStore) -> None:
    store.set("/a", {"b": 1})
    first = headers(ask(store, "GET", "/a.json", headers=ETAG))["etag"]
    store.set("/other", 2)
    assert headers(ask(store, "GET", "/a.json", headers=ETAG))["etag"] == first
    assert "etag" not in headers(ask(store, "GET", "/a.json"))
    written = headers(ask(store, "PUT", "/a/b.json", 2, headers=ETAG))["etag"]
    assert written == headers(ask(store, "GET", "/a/b.json", headers=ETAG))["etag"] != first
    assert headers(ask(store, "GET", "/none.json", headers=ETAG))["etag"] == "null_etag"


def test_if_none_match_answers_304_or_the_value_with_its_etag(store: ElkynStore) -> None:
    store.set("/a", 1)
    etag = headers(ask(store, "GET", "/a.json", headers=ETAG))["etag"]
    assert ask(store, "GET", "/a.json", headers={"if-none-match": etag}).status == 304
    other = ask(store, "GET", "/a.json", headers={"if-none-match": "old"})
    assert (other.status, other.body, headers(other)["etag"]) == (200, b"1", etag)


def test_if_match_writes_only_over_the_value_it_names(store: ElkynStore) -> None:
    assert ask(store, "PUT", "/a.json", 1, headers={"if-match": "null_etag"}).status == 200
    refused = ask(store, "PUT", "/a.json", 2, headers={"if-match": "null_etag"})
    assert (refused.status, refused.body, store.get("/a")) == (412, b"1", 1)
    done = ask(store, "DELETE", "/a.json", headers={"if-match": headers(refused)["etag"]})
    assert (done.status, headers(done)["etag"], store.get("/a")) == (200, "null_etag", None)
    assert ask(store, "PATCH", "/a.json", {"b": 1}, headers={"if-match": "x"}).status == 400


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nope", b"NaN", b"[Infinity]", b"[" * 50_000, b"\xff", b"[" + b" " * 70_000],
)
def test_a_body_that_is_not_json_is_refused_in_firebases_words(
    store: ElkynStore, body: bytes
) -> None:
    answer = ask(store, "PUT", "/a.json", body)
    assert (answer.status, json.loads(answer.body)) == (
        400,
        {"error": "Invalid data; couldn't parse JSON object, array, or value."},
    )


@pytest.mark.nightly
def test_a_large_body_that_is_too_deep_is_refused_before_its_end(store: ElkynStore) -> None:
    answer = ask(store, "PUT", "/a.json", b"[" * 100_000)
    assert answer.status == 400
    assert b"at most 32 levels deep" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("PUT", "/a.json", {"b": {"c.d": 1}}, 400, "/a/b"),
        ("PUT", "/a/%2f.json", 1, 400, "Invalid path"),
        ("PUT", "/a/%ff.json", 1, 400, "not UTF-8"),
        ("GET", "/a$.json", None, 400, "Invalid path"),
        ("PUT", "/" + "d/" * 32 + "e.json", 1, 400, "33 levels"),
        ("POST", "/" + "d/" * 31 + "e.json", 1, 400, "33 levels"),
        ("POST", "/a/.priority.json", 1, 400, "must not hold"),
        ("PATCH", "/a.json", [1], 400, "couldn't parse JSON object"),
        ("PATCH", "/a.json", {"b": 1, "b/c": 2}, 400, "/a/b"),
        ("GET", "/metrics", None, 404, "metrics"),
        ("TRACE", "/a.json", None, 405, "not allowed"),
        ("PUT", "/a.json", b'"\\ud800"', 400, "surrogate"),
        ("PUT", "/a.json", b"1e999", 400, "finite"),
    ],
)
def test_a_request_that_cannot_be_is_refused_with_the_reason(
    store: ElkynStore, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answer = ask(store, method, path, body)
    assert answer.status == status
    assert words in json.loads(answer.body)["error"]
    assert store.get("/") is None


def test_a_query_selects_and_needs_an_order(store: ElkynStore) -> None:
    store.set("/a", {"x": {"n": 3}, "y": {"n": 1}, "z": {"n": 2}})
    limit = ask(store, "GET", "/a.json", query={"limitToFirst": "2"})
    assert json.loads(limit.body) == {
        "error": "orderBy must be defined when other query parameters are defined"
    }
    first = ask(store, "GET", "/a.json", query={"orderBy": '"n"', "limitToFirst": "2"})
    assert (first.status, first.body) == (200, b'{"y":{"n":1},"z":{"n":2}}')
    assert ask(store, "GET", "/a.json", query={"orderBy": "n"}).status == 400
    assert ask(store, "PUT", "/a.json", 1, query={"orderBy": '"$key"'}).status == 400


def test_a_path_without_json_is_the_same_api(store: ElkynStore) -> None:
    assert ask(store, "PUT", "/a/b", {"c": 1}).body == b'{"c":1}'
    assert ask(store, "GET", "/a/b.json").body == ask(store, "GET", "/a/b/").body == b'{"c":1}'
    assert ask(store, "GET", "/").body == ask(store, "GET", "/.json").body
    assert ask(store, "PUT", "/auth/token.json", 2).status == 200
    assert [ask(store, "GET", path).status for path in ("/auth/token", "/.ws", "/.x/y.json")] == [
        404,
        404,
        404,
    ]


def test_priorities_show_with_format_export_alone(store: ElkynStore) -> None:
    ask(store, "PUT", "/a.json", {"b": {".value": 1, ".priority": 7}})
    assert ask(store, "GET", "/a.json").body == b'{"b":1}'
    exported = ask(store, "GET", "/a.json", query={"format": "export"})
    assert json.loads(exported.body) == {"b": {".value": 1, ".priority": 7}}
    assert ask(store, "GET", "/a/b/.priority.json").body == b"7"


def test_jsonp_and_downloads(store: ElkynStore) -> None:
    store.set("/a", "</script>")
    script = ask(store, "GET", "/a.json", query={"callback": "app.got[0]"})
    assert script.body == b'app.got[0]("</script>");'
    assert headers(script)["content-type"].startswith("application/javascript")
    assert headers(script)["x-content-type-options"] == "nosniff"
    assert ask(store, "GET", "/a.json", query={"callback": "alert(1)//"}).status == 400
    file = ask(store, "GET", "/a.json", query={"download": 'a"b\r\n.json'})
    assert headers(file)["content-disposition"] == ("attachment; filename*=UTF-8''a%22b%0D%0A.json")


@pytest.mark.parametrize(
    ("parameter", "value", "status"),
    [
        ("timeout", "3s", 200),
        ("timeout", "500ms", 200),
        ("timeout", "2h", 400),
        ("timeout", "16min", 400),
        ("writeSizeLimit", "tiny", 200),
        ("writeSizeLimit", "unlimited", 200),
        ("writeSizeLimit", "huge", 400),
    ],
)
def test_times_are_bounded_by_parameters(
    store: ElkynStore, parameter: str, value: str, status: int
) -> None:
    assert ask(store, "PUT", "/a.json", 1, query={parameter: value}).status == status


def test_a_write_over_its_size_limit_is_refused(store: ElkynStore) -> None:
    large = b'"' + b"x" * 9_000_000 + b'"'
    answer = ask(store, "PUT", "/a.json", large, query={"writeSizeLimit": "tiny"})
    assert (answer.status, store.get("/a")) == (400, None)


@pytest.mark.parametrize(
    "body",
    [b"12345678901234567890", b"0.1", b"1e300", b"-9007199254740993", b"1.7976931348623157e308"],
)
def test_numbers_round_trip(store: ElkynStore, body: bytes) -> None:
    ask(store, "PUT", "/a.json", body)
    assert json.loads(ask(store, "GET", "/a.json").body) == json.loads(body)


def test_of_two_equal_keys_the_last_counts(store: ElkynStore) -> None:
    assert ask(store, "PUT", "/a.json", b'{"b":1,"b":2}').body == b'{"b":2}'


@pytest.mark.slow
@given(
    method=st.sampled_from(["GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "X"]),
    path=st.text(max_size=30).map(lambda text: f"/{text}.json"),
    body=st.one_of(st.binary(max_size=30), st.text(max_size=30).map(str.encode)),
    query=st.dictionaries(
        st.sampled_from(
            ["ns", "print", "shallow", "orderBy", "callback", "timeout", "startAt", "format"]
        ),
        st.text(max_size=5),
    ),
)
def test_no_request_causes_a_server_error(
    shared: ElkynStore, method: str, path: str, body: bytes, query: dict[str, str]
) -> None:
    answer = handle(Request(method, path, query, {}, body), shared)
    assert answer.status in (200, 204, 304, 400, 404, 405)
    script = dict(answer.headers).get("content-type", "").startswith("application/javascript")
    assert script or not answer.body or json.loads(answer.body) is not NotImplemented
