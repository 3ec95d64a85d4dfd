"""The REST API: what it answers to who asks as it is meant."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from click.testing import Result
from PIL import ExifTags, Image, TiffImagePlugin
from starlette.testclient import TestClient

from imgsearch.collection import Collection
from imgsearch.storage.files import exclusive
from tests.support.pictures import picture, save_pictures
from tests.support.textures import texture
from tests.web.conftest import Served

PROBLEM = "application/problem+json"


def ask(
    client: TestClient, image: Path | bytes | None = None, to: str = "query", **fields: Any
) -> httpx2.Response:
    """Post a query, or another form; a list is a field that stands several times."""
    content = image.read_bytes() if isinstance(image, Path) else image
    name = image.name if isinstance(image, Path) else "image"
    # A form without a file is sent as such only if a part has no file name.
    parts: list[tuple[str, Any]] = [("image", (name, content))] if content is not None else []
    for field, value in fields.items():
        values = value if isinstance(value, list) else [value]
        parts += [(field, (None, str(each))) for each in values]
    return client.post(f"/api/v1/{to}", files=parts)


def paths(answer: httpx2.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["path"] for hit in answer.json()["hits"]]


def assert_problem(answer: httpx2.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    said = answer.json()
    assert said["status"] == status
    assert "\n" not in said["detail"]
    for word in words:
        assert word in said["detail"]


# Queries


def test_a_query_answers_with_the_json_of_the_command_line(
    client: TestClient, indexed: Path, photos: Path, invoke: Callable[..., Result]
) -> None:
    query = photos / "0004.jpg"
    answered = ask(client, query, k=5).json()
    line = invoke("-c", indexed, "query", query, "-k", "5", "--json", "--include-self").stdout
    expected = json.loads(line)
    assert answered.pop("query") == query.name
    assert len(answered.pop("embedding")) == 32
    for hit in answered["hits"]:
        assert (hit.pop("width"), hit.pop("height")) == (48, 40)
    expected.pop("query")
    assert answered == expected
    assert answered["hits"][0]["path"] == str(query)


def test_an_upload_can_be_asked_about_again_by_its_name(client: TestClient, photos: Path) -> None:
    first = ask(client, photos / "0004.jpg", k=40)
    name = first.json()["embedding"]
    again = ask(client, embedding=name, k=40)
    assert paths(again) == paths(first)
    pages = [paths(ask(client, embedding=name, k=15, offset=offset)) for offset in (0, 15, 30, 45)]
    assert [len(page) for page in pages] == [15, 15, 10, 0]
    assert [path for page in pages for path in page] == paths(first)
    assert_problem(ask(client, embedding="0" * 32), 404, "no longer has that image")


def test_images_of_the_collection_are_combined_by_their_weights(
    client: TestClient, indexed: Path, photos: Path
) -> None:
    ids = {Path(each["path"]).name: each["id"] for each in browse(client)}
    one, two, three = (ids[name] for name in ("0000.jpg", "0001.png", "0002.jpg"))
    answered = ask(client, like=[one, f"{two}:2.5", f"{three}:-1"], include_self="true", k=40)
    with Collection.open(indexed, device="cpu") as collection:
        files = [photos / name for name in ("0000.jpg", "0001.png")]
        embedding = collection.combine(files, unlike=[photos / "0002.jpg"], weights=[1, 2.5, 1])
        expected = [hit.path for hit in collection.query(embedding, k=40)]
    assert paths(answered) == expected
    assert answered.json()["query"] is answered.json()["embedding"] is None


def test_an_image_of_the_collection_is_no_hit_of_its_own_unless_that_is_asked_for(
    client: TestClient, photos: Path
) -> None:
    ids = {Path(each["path"]).name: each["id"] for each in browse(client)}
    one, two = str(photos / "0000.jpg"), str(photos / "0001.png")
    likes: dict[str, Any] = {"like": [ids["0000.jpg"], f"{ids['0001.png']}:2.5"], "k": 40}
    everything = {str(path) for path in photos.iterdir()}
    left_out: dict[str, Any]
    for left_out in ({}, {"include_self": "false"}, {"exclude_self": "true"}):
        assert set(paths(ask(client, None, **likes, **left_out))) == everything - {one, two}
    brought_in: dict[str, Any]
    for brought_in in (
        {"include_self": "true"},
        {"exclude_self": "false"},
        {"include_self": "true", "exclude_self": "false"},
    ):
        assert set(paths(ask(client, None, **likes, **brought_in))) == everything
    both = ask(client, **likes, include_self="true", exclude_self="true")
    assert_problem(both, 422, "are mutually exclusive")


def test_an_explanation_is_the_json_of_the_command_line(
    client: TestClient, indexed: Path, photos: Path, invoke: Callable[..., Result]
) -> None:
    query, hit = photos / "0004.jpg", photos / "0006.jpg"
    ids = {Path(each["path"]).name: each["id"] for each in browse(client)}
    for crop in ([], ["--crop", "0,0,0.5,1"]):
        line = invoke("-c", indexed, "explain", query, hit, "--json", *crop).stdout
        expected = json.loads(line)
        expected.pop("query")
        fields = {"hit": ids[hit.name], **({"crop": crop[1]} if crop else {})}
        assert ask(client, query, "explain", **fields).json() == expected
        answered = ask(client, None, "explain", like=ids[query.name], **fields)
        assert answered.json() == expected


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"like": 1}, 422, "no `hit`"),
        ({"hit": 1}, 422, "either `image` or `like`"),
        ({"hit": 1, "like": 1, "k": 5}, 422, "there is no field 'k'"),
        ({"hit": "x", "like": 1}, 422, "hit is 'x'"),
        ({"hit": [1, 2], "like": 1}, 422, "hit is given twice"),
        ({"hit": 1, "like": 1, "crop": "0,0,0,0"}, 422, "is empty"),
        ({"hit": 999, "like": 1}, 404, "999"),
        ({"hit": 1, "like": 999}, 404, "999"),
    ],
)
def test_a_question_that_makes_no_sense_is_not_explained(
    client: TestClient, fields: dict[str, Any], status: int, word: str
) -> None:
    assert_problem(ask(client, None, "explain", **fields), status, word)


def test_an_image_that_cannot_be_decoded_or_has_changed_is_not_explained(
    client: TestClient, indexed_tree: Path, collection: Collection, served: Served
) -> None:
    assert_problem(ask(client, b"no image", "explain", hit=1), 422, "image: ")
    here = served(Path(collection.info().directory))
    first = browse(here)[0]
    assert Path(first["path"]).is_relative_to(indexed_tree)
    Path(first["path"]).write_bytes(b"something else")
    answered = ask(here, None, "explain", hit=first["id"], like=first["id"])
    assert_problem(answered, 410, "has changed")


def test_an_upload_is_found_where_it_is_in_the_collection(client: TestClient, photos: Path) -> None:
    sent = ask(client, photos / "0004.jpg")
    assert paths(sent)[0] == str(photos / "0004.jpg")
    assert paths(ask(client, embedding=sent.json()["embedding"])) == paths(sent)


def test_exact_copies_of_an_image_elsewhere_are_its_hits(
    client: TestClient, indexed: Path, photos: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy" / "copy.jpg"
    copy.parent.mkdir()
    shutil.copy(photos / "0004.jpg", copy)
    with Collection.open(indexed, device="cpu") as collection:
        collection.index([copy.parent])
    ids = {each["path"]: each["id"] for each in browse(client)}
    assert paths(ask(client, like=ids[str(copy)]))[0] == str(photos / "0004.jpg")
    assert paths(ask(client, like=ids[str(photos / "0004.jpg")]))[0] == str(copy)


def test_pages_of_hits_do_not_repeat_without_the_image_itself(client: TestClient) -> None:
    whole = ask(client, like=4, k=40).json()["hits"]
    pages = [ask(client, like=4, k=15, offset=offset).json()["hits"] for offset in (0, 15, 30)]
    assert [hit["id"] for page in pages for hit in page] == [hit["id"] for hit in whole]
    assert [hit["rank"] for page in pages for hit in page] == list(range(1, 40))


def test_an_image_that_is_alone_finds_nothing(served: Served, empty: Path, tmp_path: Path) -> None:
    save_pictures(tmp_path / "one", 1)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "one"])
    client = served(empty)
    assert paths(ask(client, like=1)) == []
    assert len(paths(ask(client, like=1, include_self="true"))) == 1


def test_an_upload_and_images_of_the_collection_are_combined(
    client: TestClient, photos: Path
) -> None:
    alone = ask(client, photos / "0000.jpg", k=40)
    both = ask(client, photos / "0000.jpg", like=[2], k=40)
    assert paths(both) != paths(alone)
    assert paths(ask(client, embedding=both.json()["embedding"], like=[2], k=40)) == paths(both)


def test_several_uploads_are_combined_as_the_command_combines_them(
    client: TestClient, photos: Path, indexed: Path
) -> None:
    files = [photos / name for name in ("0000.jpg", "0002.jpg", "0004.jpg")]
    named = [ask(client, path, k=1).json()["embedding"] for path in files]
    with Collection.open(indexed, device="cpu") as collection:
        expected = [hit.path for hit in collection.query(collection.combine(files), k=40)]
    assert paths(ask(client, embedding=named, k=40)) == expected
    assert paths(ask(client, files[0], embedding=named[1:], k=40)) == expected
    cropped = ask(client, files[0], embedding=named[1:], crop="0,0,0.5,1", k=40)
    assert paths(cropped) != expected
    assert_problem(ask(client, embedding=[named[0], "0" * 32]), 404, "no longer has that image")
    assert_problem(ask(client, embedding=named[:1] * 51), 422, "at most 50")


@pytest.mark.few(1)
@pytest.mark.parametrize("crop", ["0,0,0.5,1", "0,0,24,40"])
def test_a_part_of_an_image_is_searched_for(
    client: TestClient, photos: Path, indexed: Path, crop: str
) -> None:
    path = photos / "0004.jpg"
    (id_,) = (each["id"] for each in browse(client) if each["path"] == str(path))
    box = (0.0, 0.0, 0.5, 1.0)
    with Collection.open(indexed, device="cpu") as collection:
        expected = [hit.path for hit in collection.query(collection.embed([path], crop=box)[0])]
    assert paths(ask(client, path, crop=crop)) == expected
    assert paths(ask(client, like=id_, crop=crop, include_self="true")) == expected


def test_hits_may_be_left_out_and_lists_probed_as_is_asked(
    client: TestClient, photos: Path, indexed: Path
) -> None:
    with Collection.open(indexed, device="cpu") as collection:
        collection.index(nlist=5)
    query = photos / "0004.jpg"
    found = ask(client, query, k=40).json()["hits"]
    least = found[7]["similarity"]
    assert len(ask(client, query, k=40, min_similarity=least).json()["hits"]) == 8
    exact = ask(client, query, exact="true").json()
    assert (exact["search"], exact["nprobe"], exact["recall"]) == ("exact", 0, 1.0)
    assert ask(client, query, recall=0.1).json()["search"] in ("ivf", "wide", "exact")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "the query is empty"),
        ({"like": ["0"]}, "like is '0'"),
        ({"like": ["1:0"]}, "ID:WEIGHT"),
        ({"like": ["9" * 19]}, "ID:WEIGHT"),
        ({"like": ["1:-1"]}, "nothing to combine"),
        ({"like": ["1"], "k": "0"}, "from 1 to 1000"),
        ({"like": ["1"], "k": "ten"}, "a whole number"),
        ({"like": ["1"], "k": ["1", "2"]}, "given twice"),
        ({"like": ["1"], "offset": "-1"}, "from 0"),
        ({"like": ["1"], "recall": "2"}, "from 0 to 1"),
        ({"like": ["1"], "recall": "0"}, "more than 0"),
        ({"like": ["1"], "exact": "perhaps"}, "true or false"),
        ({"like": ["1"], "exact": "true", "recall": "0.5"}, "give one of"),
        ({"like": ["1"], "min_similarity": "1.5"}, "from -1 to 1"),
        ({"like": ["1"], "crop": "0,0,1"}, "crop is"),
        ({"like": ["1"], "crop": "1,0,0,1"}, "empty"),
        ({"like": ["1", "2"], "crop": "0,0,1,1"}, "crop applies to"),
        ({"embedding": "../../etc/passwd"}, "is not valid"),
        ({"url": "http://localhost/"}, "no field 'url'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: TestClient, fields: dict[str, Any], words: str
) -> None:
    answered = ask(client, **fields or {"k": 3})
    assert_problem(answered, 422, words)


def test_what_is_no_image_is_refused_by_the_name_it_has_with_its_owner(
    client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "letter.jpg").write_text("Dear Ana")
    answered = ask(client, tmp_path / "letter.jpg")
    assert_problem(answered, 422, "letter.jpg: ")
    assert str(tmp_path) not in answered.text
    assert_problem(ask(client, b""), 422, "image: ")


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({}, b"", 415),
        ({"Content-Type": "multipart/form-data"}, b"", 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"nonsense", 400),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\n", 400),
    ],
)
def test_a_body_that_is_no_form_is_refused(
    client: TestClient, headers: dict[str, str], body: bytes, status: int
) -> None:
    assert_problem(client.post("/api/v1/query", headers=headers, content=body), status)


# Images


def browse(client: TestClient, **parameters: int | str) -> list[dict[str, Any]]:
    answered = client.get("/api/v1/images", params={"limit": 1000, **parameters})
    assert answered.status_code == 200, answered.text
    images: list[dict[str, Any]] = answered.json()["images"]
    return images


def test_images_are_listed_page_by_page_in_the_order_in_which_they_came(
    client: TestClient, photos: Path
) -> None:
    everything = browse(client)
    assert [each["path"] for each in everything] == sorted(map(str, photos.iterdir()))
    assert [each["id"] for each in everything] == sorted(each["id"] for each in everything)
    after, pages = 0, []
    while page := browse(client, after=after, limit=15):
        pages.append(len(page))
        after = page[-1]["id"]
    assert pages == [15, 15, 10]


def test_a_filter_limits_queries_and_listings(client: TestClient, photos: Path) -> None:
    everything, png = browse(client), {"name": "*.png", "folder": str(photos), "date_after": "1999"}
    expected = [each["path"] for each in everything if each["path"].endswith(".png")]
    after, listed = 0, list[str]()
    while page := browse(client, after=after, limit=7, **png):
        listed += [each["path"] for each in page]
        after = page[-1]["id"]
    assert listed == expected
    like: dict[str, Any] = {"like": [everything[0]["id"]], "include_self": "true", "k": 40}
    assert sorted(paths(ask(client, None, **like, **png))) == expected
    for wrong, message in (
        ({"size": "big"}, "size is"),
        ({"folder": "below"}, "absolute"),
        ({"date_before": "soon"}, "before is 'soon'"),
    ):
        assert_problem(client.get("/api/v1/images", params=wrong), 422, message)
        assert_problem(ask(client, None, **like, **wrong), 422, message)


def test_an_image_is_known_by_its_id(client: TestClient, photos: Path) -> None:
    path = photos / "0003.png"
    (listed,) = (each for each in browse(client) if each["path"] == str(path))
    known = client.get(f"/api/v1/images/{listed['id']}").json()
    assert known["digest"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert known["size"] == path.stat().st_size
    assert (known["width"], known["height"]) == (48, 40)
    assert listed == known  # indexing has learned the size


def test_an_original_is_the_file_with_its_type_and_a_validator(client: TestClient) -> None:
    for each in browse(client)[:2]:
        address = f"/api/v1/images/{each['id']}/original"
        answered = client.get(address)
        content = Path(each["path"]).read_bytes()
        assert answered.content == content
        kind = "png" if each["path"].endswith("png") else "jpeg"
        assert answered.headers["content-type"] == f"image/{kind}"
        assert answered.headers["etag"] == f'"{each["digest"]}"'
        assert "sandbox" in answered.headers["content-security-policy"]
        again = client.get(address, headers={"If-None-Match": answered.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.few(1)
@pytest.mark.parametrize("size", [256, 512, 768, 2048])
def test_a_thumbnail_is_upright_small_and_kept(
    served: Served, empty: Path, tmp_path: Path, size: int
) -> None:
    turned = picture(1, width=1600, height=900)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned to the right
    folder = tmp_path / "turned"
    folder.mkdir()
    turned.save(folder / "turned.jpg", exif=exif)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    client = served(empty)
    address = f"/api/v1/images/1/thumbnail?size={size}"
    answered = client.get(address)
    assert answered.headers["content-type"] == "image/jpeg"
    with Image.open(io.BytesIO(answered.content)) as image:
        longest = min(size, 1600)
        assert image.size == (round(longest * 9 / 16), longest)
    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert kept.stat().st_size < len(answered.content) + 100
    (folder / "turned.jpg").unlink()
    assert client.get(address).content == answered.content  # also without its file
    etag = {"If-None-Match": answered.headers["etag"]}
    assert client.get(address, headers=etag).status_code == 304
    shutil.rmtree(tmp_path / "cache")
    assert_problem(client.get(address), 410, "is gone")
    assert_problem(client.get("/api/v1/images/1/original"), 410, "is gone")
    facts = client.get("/api/v1/images/1").json()
    assert (facts["width"], facts["height"]) == (900, 1600)


def test_a_file_that_is_not_what_was_indexed_is_not_delivered(
    served: Served, empty: Path, tmp_path: Path
) -> None:
    (path,) = save_pictures(tmp_path / "one", 1)
    with Collection.open(empty, device="cpu") as collection:
        collection.index([path])
    client = served(empty)
    content = path.read_bytes()
    secret = b"the same size, and none of your business"[: len(content)].ljust(len(content))
    for other in (secret, content + b"more"):
        path.write_bytes(other)
        for what in ("original", "thumbnail"):
            answered = client.get(f"/api/v1/images/1/{what}")
            assert_problem(answered, 410, "has changed since it was indexed")
    path.unlink()
    path.mkdir()
    assert_problem(client.get("/api/v1/images/1/original"), 410)


@pytest.mark.parametrize("what", ["", "/original", "/thumbnail"])
def test_an_image_that_is_not_there_is_not_found(client: TestClient, what: str) -> None:
    assert_problem(client.get(f"/api/v1/images/999999{what}"), 404, "no image with the id 999999")
    for wrong in ("0", "-1", "x", str(2**63)):
        assert_problem(client.get(f"/api/v1/images/{wrong}{what}"), 422, "id: ")
    assert_problem(ask(client, like="999999"), 404, "999999")


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=1001", "limit=x"])
def test_a_page_that_makes_no_sense_is_refused(client: TestClient, query: str) -> None:
    assert_problem(client.get(f"/api/v1/images?{query}"), 422)
    assert_problem(client.get("/api/v1/images/1/thumbnail?size=100000"), 422, "size: ")


# The collection


def test_info_is_that_of_the_command_line(
    client: TestClient, indexed: Path, invoke: Callable[..., Result]
) -> None:
    answered = client.get("/api/v1/info").json()
    assert (answered.pop("indexing"), answered.pop("read_only")) == (False, False)
    assert answered.pop("may_fill")
    expected = json.loads(invoke("-c", indexed, "info", "--json", "--device", "cpu").stdout)
    assert answered == expected


def test_it_is_told_while_somebody_indexes(client: TestClient, indexed: Path) -> None:
    with exclusive(indexed):
        assert client.get("/api/v1/info").json()["indexing"] is True
    assert client.get("/api/v1/info").json()["indexing"] is False


def test_health_needs_no_collection(client: TestClient, indexed: Path) -> None:
    shutil.rmtree(indexed)
    answered = client.get("/api/v1/health")
    assert (answered.status_code, answered.json()["status"]) == (200, "ok")
    assert_problem(client.get("/api/v1/info"), 503, "moved, deleted or replaced")


def test_what_another_process_indexes_and_removes_is_seen_at_once(
    client: TestClient, indexed: Path, tmp_path: Path
) -> None:
    (new,) = save_pictures(tmp_path / "new", 1, first=77)
    assert str(new) not in paths(ask(client, new, k=40))
    with Collection.open(indexed, device="cpu") as collection:
        collection.index([new])
        assert paths(ask(client, new))[0] == str(new)
        assert client.get("/api/v1/info").json()["images"] == 41
        assert browse(client)[-1]["path"] == str(new)
        collection.remove(new)
    assert str(new) not in paths(ask(client, new, k=41))


def test_an_empty_collection_is_served(served: Served, empty: Path, photos: Path) -> None:
    client = served(empty)
    assert browse(client) == []
    assert ask(client, photos / "0000.jpg").json()["hits"] == []
    assert client.get("/api/v1/info").json()["images"] == 0


def test_a_name_that_is_not_utf8_comes_with_its_bytes(
    served: Served, empty: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "names"
    folder.mkdir()
    path = bytes(folder / "caf") + b"\xe9.png"
    buffer = io.BytesIO()
    picture(3).save(buffer, "PNG")
    with open(path, "wb") as file:
        file.write(buffer.getvalue())
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    client = served(empty)
    (listed,) = browse(client)
    assert base64.b64decode(listed["path_bytes"]) == path
    (hit,) = ask(client, like="1", include_self="true").json()["hits"]
    assert base64.b64decode(hit["path_bytes"]) == path
    original = client.get("/api/v1/images/1/original")
    assert original.content == buffer.getvalue()
    assert "caf%EF%BF%BD.png" in original.headers["content-disposition"]


def test_versions_of_a_picture_are_one_hit_if_that_is_asked_for(
    served: Served, empty: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "versions"
    folder.mkdir()
    for seed in range(6):
        texture(seed).save(folder / f"{seed}.png")
    texture(0).save(folder / "0 encoded.jpg", quality=80)
    (folder / "1 the same.png").write_bytes((folder / "1.png").read_bytes())
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    client = served(empty)
    query = folder / "5.png"
    plain = ask(client, query, k=8).json()["hits"]
    assert all("copies" not in hit for hit in plain)
    folded = ask(client, query, k=8, fold="true").json()["hits"]
    assert [hit["rank"] for hit in folded] == [1, 2, 3, 4, 5, 6]
    versions = {
        Path(hit["path"]).name: [Path(copy["path"]).name for copy in hit["copies"]]
        for hit in folded
        if hit["copies"]
    }
    assert sorted(sorted([name, *others]) for name, others in versions.items()) == [
        ["0 encoded.jpg", "0.png"],
        ["1 the same.png", "1.png"],
    ]
    order = [hit["id"] for hit in folded]
    assert order == [hit["id"] for hit in plain if hit["id"] in order]
    pages = [ask(client, query, k=3, offset=offset, fold="true") for offset in (0, 3)]
    assert [hit["id"] for page in pages for hit in page.json()["hits"]] == order


def test_where_a_picture_was_taken_is_told_only_on_request(
    served: Served, empty: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = TiffImagePlugin.IFDRational(2.8)
    place = {1: "N", 2: (41.0, 2.0, 6.0), 3: "W", 4: (83.0, 18.0, 18.0)}
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    (tmp_path / "taken").mkdir()
    picture(1).save(tmp_path / "taken" / "1.jpg", exif=exif)
    picture(2).save(tmp_path / "taken" / "2.jpg")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([tmp_path / "taken"])
    client = served(empty)
    nothing = dict.fromkeys(("exposure", "iso", "focal_length", "lens", "latitude", "longitude"))
    ids = {Path(facts["path"]).name: facts["id"] for facts in browse(client)}
    address = f"/api/v1/images/{ids['1.jpg']}/exif"
    hidden = nothing | {"aperture": 2.8, "located": True}
    assert client.get(address).json() == hidden
    assert client.get(f"{address}?location=false").json() == hidden
    shown = client.get(f"{address}?location=true").json()
    assert shown == hidden | {"latitude": 41.035, "longitude": -83.305}
    other = client.get(f"/api/v1/images/{ids['2.jpg']}/exif?location=true").json()
    assert other == nothing | {"aperture": None, "located": False}
    assert client.get(f"{address}?location=1").status_code == 422
    assert client.get("/api/v1/images/99/exif").status_code == 404
    (tmp_path / "taken" / "1.jpg").unlink()
    assert client.get(address).status_code == 410


def test_hits_are_verified_if_that_is_asked_for(
    served: Served, empty: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "textures"
    folder.mkdir()
    for seed in range(6):
        texture(seed).save(folder / f"{seed}.png")
    with Collection.open(empty, device="cpu") as collection:
        collection.index([folder])
    client = served(empty)
    part = tmp_path / "part.png"
    texture(3).crop((40, 30, 200, 150)).rotate(90, expand=True).save(part)
    first, *others = ask(client, part, k=6, verify="true").json()["hits"]
    assert Path(first["path"]).name == "3.png"
    assert (first["inliers"] > 0, first["band"]) == (True, "same thing")
    assert [hit["inliers"] for hit in others] == [0] * 5
    assert all("inliers" not in hit for hit in ask(client, part, k=6).json()["hits"])
    cropped = ask(client, folder / "3.png", k=2, crop="40,30,200,150", verify="true").json()
    assert Path(cropped["hits"][0]["path"]).name == "3.png"
    id_ = first["id"]
    (itself,) = ask(
        client, like=id_, include_self="true", k=1, crop="0,0,0.5,0.5", verify="true", fold="true"
    ).json()["hits"]
    assert (itself["id"], itself["inliers"] > 0, itself["copies"]) == (id_, True, [])
    pages = [ask(client, part, k=3, offset=offset, verify="true").json() for offset in (0, 3)]
    order = [hit["id"] for hit in (first, *others)]
    assert [hit["id"] for page in pages for hit in page["hits"]] == order
    for more in ({"like": ["1", "2"]}, {"like": "1:-1"}, {"embedding": "0" * 32}):
        refused = ask(client, **more, verify="true")
        assert refused.status_code == 422
        assert "verify compares one image" in refused.json()["detail"]


def test_embeddings_of_many_images_are_found_in_any_order(opened: Collection) -> None:
    entries = opened.entries.after(0, 100)
    ids = [entry.id for entry in entries][::-1]
    expected = opened.embed([entry.path for entry in entries])[::-1]
    np.testing.assert_allclose(opened.entries.embeddings(ids), expected, atol=1e-5)
