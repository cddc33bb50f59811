"""Links, texts, limits, and what a study's folder must be like."""

import json
import stat
import threading

import pytest
from starlette.testclient import TestClient

from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.study.limits import MAX_BUCKETS, RateLimit
from fairhuman.study.links import SECRET, participant_tokens
from fairhuman.study.shown import load_shown
from fairhuman.study.study import DESIGN, SETTINGS, Design, StudyItem, Trial, load_design, save_design
from fairhuman.study.texts import DEFAULT, load_texts
from fairhuman.web.app import RefusedError
from fairhuman.web.site import parse_site
from helpers.small_study import METHODS


def test_links_are_the_same_each_time_all_different_and_of_their_folder_alone(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    tokens = participant_tokens(one, range(50))
    assert participant_tokens(one, range(50)) == tokens
    assert len({*tokens.values(), *participant_tokens(other, range(50)).values()}) == 100
    assert all(len(token) == 43 for token in tokens.values())
    assert stat.S_IMODE((one / SECRET).stat().st_mode) == 0o600


def test_threads_that_make_links_at_once_make_the_same(tmp_path):
    found, busy = [], []

    def make():
        try:
            found.append(participant_tokens(tmp_path, range(3)))
        except DataError:
            busy.append(True)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) + len(busy) == 6
    assert found
    assert all(tokens == found[0] for tokens in found)


def test_a_damaged_secret_makes_no_links(tmp_path):
    (tmp_path / SECRET).write_bytes(b"short")
    with pytest.raises(DataError, match="must hold 32 bytes, found 5"):
        participant_tokens(tmp_path, range(1))


@pytest.mark.parametrize(
    ("url", "base", "host"),
    [
        ("https://study.example.org", "https://study.example.org", "study.example.org"),
        ("https://Study.example.org/", "https://Study.example.org", "study.example.org"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", "127.0.0.1"),
        ("http://[::1]:8080/", "http://[::1]:8080", "::1"),
    ],
)
def test_addresses_of_participants(url, base, host):
    assert parse_site(url) == (base, host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "study.example.org",
        "ftp://x",
        "https://",
        "https://x/study",
        "https://x?a",
        "https://u:p@x",
        "http://[::1",
        "http://x:99999",
    ],
)
def test_addresses_that_can_t_be(url):
    with pytest.raises(FairHumanError, match="url must be like"):
        parse_site(url)


def write_texts(path, **changes):
    texts = {**json.loads(DEFAULT.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({name: text for name, text in texts.items() if text is not ...}), encoding="utf-8")
    return path


def test_texts_can_be_replaced(tmp_path):
    path = write_texts(tmp_path / "texts.json", tie="Égal", progress="{now}")
    assert load_texts(path)["tie"] == "Égal"
    assert load_texts()["tie"] == "No difference"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tie": ..., "back": ...}, "'tie' is missing; 'back' is missing"),
        ({"ties": "x"}, "'ties' is unknown, did you mean 'tie'?"),
        ({"tie": 3}, "'tie' must be a text, found 3"),
        ({"tie": " "}, "'tie' must be a text"),
        ({"choose": "{leter} is better"}, "'choose' must not contain {leter}"),
    ],
)
def test_wrong_texts_are_named(tmp_path, changes, said):
    with pytest.raises(DataError) as error:
        load_texts(write_texts(tmp_path / "texts.json", **changes))
    assert said in str(error.value)


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', "\udcff"])
def test_files_that_hold_no_texts(tmp_path, content):
    path = tmp_path / "texts.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match="expected"):
        load_texts(path)


def test_every_text_is_used():
    web = DEFAULT.parents[1] / "web"
    used = "".join(
        path.read_text(encoding="utf-8") for kind in ("templates/study*", "static/study*.js") for path in web.glob(kind)
    )
    assert [name for name in load_texts() if f"texts.{name}" not in used] == []


def test_a_bucket_empties_fills_again_and_is_each_one_s_own():
    now = [0.0]
    limit = RateLimit(3, 0.5, lambda: now[0])
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RefusedError, match="in 2 s") as refused:
        limit.take("a")
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "2"})
    limit.take("b")
    now[0] = 2.0
    limit.take("a")
    with pytest.raises(RefusedError):
        limit.take("a")
    now[0] = 1000.0
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RefusedError):
        limit.take("a")


def test_a_flood_of_addresses_takes_no_more_memory():
    limit = RateLimit(1, 1.0)
    for number in range(MAX_BUCKETS + 50):
        limit.take(str(number))
    assert len(limit._buckets) == MAX_BUCKETS


def spoil(folder, **changes):
    design = load_design(folder)
    values = {"methods": design.methods, "items": design.items, "participants": design.participants}
    save_design(Design(**{**values, **changes}), folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"participants": ()}, "must have participants"),
        ({"participants": ((),)}, "every participant a trial"),
        ({"participants": ((Trial(9, METHODS[:2]),),)}, r"an item in 0\.\.3, found 9"),
        ({"participants": ((Trial(-1, METHODS[:2]),),)}, "found -1"),
        ({"participants": ((Trial(0, ("nobody", METHODS[0])),),)}, "nobody"),
        ({"participants": ((Trial(0, METHODS[:1]),),)}, "two or more"),
        ({"items": (StudyItem("x", {"a": "../study.yaml", "b": "b.jpg"}, {}),)}, "name must be plain"),
        ({"items": (StudyItem("x", {"a": "gone.jpg", "b": "b.jpg"}, {}),)}, "gone.jpg: the picture can't be read"),
        ({"items": (StudyItem("x", {"a": "a.svg", "b": "b.svg"}, {}),)}, "end in one of .jpg"),
        (
            {"items": (StudyItem("x", {"a": "a.jpg", "b": "b.jpg"}, {"a": ("c.jpg",)}),)},
            r"different numbers .* \[0, 1\]",
        ),
    ],
)
def test_a_design_that_can_t_be_shown_is_refused(study_folder, changes, said):
    folder = study_folder()
    spoil(folder, **changes)
    with pytest.raises(DataError, match=said):
        load_shown(folder)


def test_a_folder_that_is_no_study_is_named(study_folder, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: there is no such folder; `fairhuman study create \S+` makes one"):
        load_shown(tmp_path / "nowhere")
    folder = study_folder()
    (folder / DESIGN).write_text("{}")
    with pytest.raises(DataError, match="isn't the design of a study"):
        load_shown(folder)
    (folder / SETTINGS).write_text("title: [1")
    with pytest.raises(RecipeError, match="expected a YAML file"):
        load_shown(folder)


def test_attention_checks_look_like_any_other_trial(study_folder, make_app):
    folder = study_folder(trials=3)
    design = load_design(folder)
    check = StudyItem(
        "a check", dict(zip(("real", "spoilt"), design.items[2].pictures.values(), strict=True)), {}, "real"
    )
    trials = (Trial(0, METHODS[:2]), Trial(2, ("spoilt", "real")), Trial(1, METHODS[:2]))
    spoil(folder, items=(*design.items[:2], check), participants=(trials,))
    app, tokens = make_app(folder)
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        root = f"/p/{tokens[0]}"
        client.post(f"{root}/consent", headers={"origin": "http://127.0.0.1:8000"})
        answer = client.get(f"{root}/api/trials")
    assert [set(trial) for trial in answer.json()["trials"]] == [{"prompt", "pictures", "zooms"}] * 3
    assert "real" not in answer.text
    assert "spoilt" not in answer.text
