"""The token: which are taken, who has shown it, and how slowly it can be guessed."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from imgsearch.errors import SettingError
from imgsearch.web.options import ServerOptions
from tests.web.conftest import Served
from tests.web.serving import listening
from tests.web.test_api import assert_problem

TOKEN = "open-sesame"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def guarded(served: Served, indexed: Path) -> TestClient:
    return served(indexed, token=TOKEN)


def log_in(client: TestClient, token: str = TOKEN) -> httpx2.Response:
    return client.post("/", data={"token": token}, follow_redirects=False)


def cookie_of(answer: httpx2.Response) -> str:
    """Return the cookie that an answer sets, as a browser sends it."""
    return answer.headers["set-cookie"].partition(";")[0]


def asks(client: TestClient, cookie: str) -> int:
    client.cookies.clear()
    return client.get("/api/v1/info", headers={"Cookie": cookie}).status_code


# Which are taken


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        (" ", "blanks"),
        ("a", "fewer than 8"),
        ("1234567", "fewer than 8"),
        ("        ", "blanks"),
        ("two words", "blanks"),
        ("tab\tand-more", "blanks"),
        ("line\nand-more", "blanks"),
        (" leading-blank", "blanks"),
        ("nul\0and-more", "control"),
        ("schlüsselwort", "ASCII"),
    ],
)
def test_a_token_that_is_easily_guessed_or_cannot_be_sent_is_refused(
    token: str, fault: str
) -> None:
    with pytest.raises(SettingError, match=fault) as refused:
        ServerOptions(token=token)
    suggested = re.search(r"such as (\S+)", str(refused.value))
    assert suggested
    assert ServerOptions(token=suggested[1]).token == suggested[1]
    assert "\n" not in str(refused.value)


# Who has shown it


def test_a_browser_gets_a_secret_of_its_own_that_has_nothing_to_do_with_the_token(
    guarded: TestClient, served: Served, indexed: Path
) -> None:
    first, second = (cookie_of(log_in(guarded)) for _ in range(2))
    assert first != second
    assert len(first.partition("=")[2]) >= 32
    assert asks(guarded, first) == asks(guarded, second) == 200
    restarted = served(indexed, token=TOKEN)
    assert asks(restarted, first) == 401


def test_the_cookie_is_for_the_folder_of_the_page_and_not_for_scripts(guarded: TestClient) -> None:
    cookie = log_in(guarded).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "path" not in cookie.lower()
    assert TOKEN not in cookie


def test_logging_out_ends_that_browser_and_no_other(guarded: TestClient) -> None:
    first, second = (cookie_of(log_in(guarded)) for _ in range(2))
    guarded.cookies.clear()
    ended = guarded.post("/logout", headers={"Cookie": first})
    assert ended.status_code == 204
    assert "Max-Age=0" in ended.headers["set-cookie"]
    assert asks(guarded, first) == 401
    assert asks(guarded, second) == 200


@pytest.mark.parametrize(
    "other",
    [
        "theme={dark",
        "a,b=1",
        'quoted="unfinished',
        "name with blanks=1",
        "nothing",
        "=",
        ";;;",
        "ü=ö",
        "[object Object]=1",
        "imgsearch-876=x",
        "imgsearch-8765x=x",
        'imgsearch-8765="',
        "imgsearch-8765=",
        "imgsearch-8765=old",
    ],
)
def test_cookies_of_others_on_this_host_do_not_matter(guarded: TestClient, other: str) -> None:
    ours = cookie_of(log_in(guarded))
    guarded.cookies.clear()
    for line in (f"{other}; {ours}", f"{ours}; {other}", f"{other};{ours};{other}"):
        headers = [(b"Cookie", line.encode("latin-1"))]
        assert guarded.get("/api/v1/info", headers=headers).status_code == 200
    alone = [(b"Cookie", other.encode("latin-1"))]
    assert guarded.get("/api/v1/info", headers=alone).status_code == 401


def test_a_form_sends_the_token_where_no_log_keeps_it(guarded: TestClient) -> None:
    page = guarded.get("/").text
    assert 'method="post"' in page
    assert 'action="./"' in page
    let_in = log_in(guarded)
    assert (let_in.status_code, let_in.headers["location"]) == (303, "./")
    assert "<main" in guarded.get("/").text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 401),
        (b"token=", 401),
        (b"token=open-barley", 401),
        (b"other=open-sesame", 401),
        (b"token=" + b"a" * 10_000, 413),
        (b"&".join(b"a=1" for _ in range(500)), 400),
    ],
)
def test_another_form_lets_nobody_in(guarded: TestClient, body: bytes, status: int) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answered = guarded.post("/", content=body, headers=kind)
    assert answered.status_code == status
    assert "set-cookie" not in answered.headers
    assert_problem(guarded.get("/api/v1/info"), 401)


def test_a_form_of_another_site_is_refused(guarded: TestClient) -> None:
    for origin in ("https://evil.example", "null"):
        sent = guarded.post("/", data={"token": TOKEN}, headers={"Origin": origin})
        assert_problem(sent, 403)
        assert_problem(guarded.post("/logout", headers={"Origin": origin}), 403)


# How slowly it can be guessed


def test_guesses_are_slowed_down_and_the_owner_still_gets_in(served: Served, indexed: Path) -> None:
    guarded = served(indexed, token=TOKEN, guesses=5, guess_seconds=0.2)
    started = time.monotonic()
    for number in range(12):
        wrong = {"Authorization": f"Bearer open-sesam{number}"}
        assert_problem(guarded.get("/api/v1/info", headers=wrong), 401)
    assert time.monotonic() - started > 6 * 0.2
    for _ in range(3):
        assert guarded.get("/api/v1/info", headers=RIGHT).status_code == 200
    assert log_in(guarded).status_code == 303


def test_a_browser_that_is_let_in_does_not_wait_for_guesses(served: Served, indexed: Path) -> None:
    guarded = served(indexed, token=TOKEN, guesses=1, guess_seconds=60.0)
    cookie = cookie_of(log_in(guarded))
    guarded.cookies.clear()
    wrong = {"Authorization": "Bearer open-sesamee"}
    for _ in range(2):
        assert_problem(guarded.get("/api/v1/info", headers=wrong), 401)
    assert guarded.get("/api/v1/info", headers=RIGHT).status_code == 429
    assert [asks(guarded, cookie) for _ in range(3)] == [200, 200, 200]


def test_a_right_token_is_never_slowed_down_by_itself(served: Served, indexed: Path) -> None:
    guarded = served(indexed, token=TOKEN, guesses=2, guess_seconds=60.0)
    for _ in range(20):
        assert guarded.get("/api/v1/health", headers=RIGHT).status_code == 200


def test_guesses_at_the_same_time_are_not_faster(indexed: Path, tmp_path: Path) -> None:
    options = ServerOptions(cache=tmp_path, token=TOKEN, guesses=5, guess_seconds=0.5)
    with listening(indexed, options) as port:
        address = f"http://127.0.0.1:{port}/api/v1/health"

        def guess(number: int) -> httpx2.Response:
            headers = {"Authorization": f"Bearer guess-{number}"}
            return guesser.get(address, headers=headers)

        with (
            httpx2.Client(headers=RIGHT, timeout=60) as owner,
            httpx2.Client(timeout=60) as guesser,
        ):
            assert owner.get(address).status_code == 200
            started = time.monotonic()
            with ThreadPoolExecutor(30) as threads:
                guessing = threads.map(guess, range(200))
                time.sleep(1)
                assert owner.get(address).status_code == 200  # it has shown the token before
                answers = list(guessing)
            took = time.monotonic() - started
        looked_at = sum(answer.status_code == 401 for answer in answers)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert looked_at + len(refused) == 200
        assert looked_at <= 5 + 1 + 10 + took / 0.5
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        deadline = time.monotonic() + 30
        while httpx2.get(address, headers=RIGHT, timeout=60).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_the_form_says_when_to_try_again(served: Served, indexed: Path) -> None:
    guarded = served(indexed, token=TOKEN, guesses=1, guess_seconds=30.0)
    assert log_in(guarded, "open-barley").status_code == 401
    assert log_in(guarded, "open-barley").status_code == 401
    answered = log_in(guarded)
    assert answered.status_code == 429
    assert "try again in" in answered.text
    assert "Token" in answered.text
