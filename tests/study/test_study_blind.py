"""Nothing that leaves the server tells the method: every response is scanned, and those of two methods compared."""

import io
import time
from itertools import chain

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from fairhuman.study import app as study_app
from fairhuman.study.study import load_design
from helpers.small_study import METHODS

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def everything(study_folder, make_app):
    """A folder, and all that a participant's browser gets of it, by path."""
    folder = study_folder(participants=2, trials=5)
    app, tokens = make_app(folder)
    found = {}
    with TestClient(app, base_url=HERE) as client:
        for token in tokens.values():
            root = f"/p/{token}"
            found[f"{root}?before"] = client.get(root)
            client.post(f"{root}/consent", headers={"origin": HERE})
            trials = client.get(f"{root}/api/trials")
            names = [
                name for t in trials.json()["trials"] for name in chain(t["pictures"], chain.from_iterable(t["zooms"]))
            ]
            paths = [root, f"{root}/api/trials", *(f"{root}/pictures/{name}" for name in names)]
            paths += ["/", "/api.json", "/health", "/static/study.js", "/admin/admin-token-of-the-tests"]
            found.update({path: client.get(path) for path in paths})
            body = {"key": "k" * 16, "trial": 0, "question": "overall", "choice": 0, "seconds": 1.0}
            found[f"{root}!"] = client.post(f"{root}/api/answers", json=body, headers={"origin": HERE})
            for name in names[:2]:
                found[f"HEAD {token} {name}"] = client.head(f"{root}/pictures/{name}")
    return folder, found


def test_no_response_header_or_address_names_a_method_or_the_design(everything):
    folder, found = everything
    assert len(found) > 60
    for path, answer in found.items():
        said = " ".join([path, *(f"{name}: {value}" for name, value in answer.headers.items())])
        for word in (*METHODS, "design.json", '"better"', '"shown"', '"item"', str(folder)):
            assert word not in said
            assert word.encode() not in answer.content, (path, word)


def test_pictures_of_an_item_have_the_same_headers_and_no_metadata(everything):
    folder, found = everything
    by_name = {path.rpartition("/")[2]: answer for path, answer in found.items() if "/pictures/" in path}
    for item in load_design(folder).items:
        places = [list(item.pictures.values()), *zip(*item.zooms.values(), strict=True)]
        for names in places:
            headers = [sorted(by_name[name].headers.items()) for name in names]
            assert all(each == headers[0] for each in headers)
            assert {header for header, _ in headers[0]} & {"etag", "last-modified", "accept-ranges"} == set()
    for answer in by_name.values():
        with Image.open(io.BytesIO(answer.content)) as image:
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            assert len(image.getexif()) == 0


def test_names_are_random_and_say_nothing_of_their_order(everything):
    folder, _ = everything
    items = load_design(folder).items
    first, second = ([item.pictures[method] for item in items] for method in METHODS[:2])
    assert all(len(name) == 36 for name in first + second)
    assert len(set(first + second)) == 10


@pytest.mark.slow
def test_the_time_that_a_picture_takes_says_nothing(study_folder, make_app, monkeypatch):
    """The smallest times of many requests, in turns: between methods they differ no more than within one."""
    monkeypatch.setattr(study_app, "PARTICIPANT_LIMIT", (10_000, 1.0))
    folder = study_folder(participants=1, trials=20)
    app, tokens = make_app(folder)
    items = load_design(folder).items
    smallest = {name: [] for method in METHODS[:2] for name in (item.pictures[method] for item in items)}
    with TestClient(app, base_url=HERE) as client:
        for _ in range(12):
            for name, times in smallest.items():
                start = time.perf_counter()
                assert client.get(f"/p/{tokens[0]}/pictures/{name}").status_code == 200
                times.append(time.perf_counter() - start)
    one, two = ([min(smallest[item.pictures[method]]) for item in items] for method in METHODS[:2])
    differences = np.subtract(one, two)
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    assert abs(differences.mean()) < 4 * error + 1e-4
