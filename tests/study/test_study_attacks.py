"""What an attacker tries on a study: guessing sides, measuring pictures, claiming times, taking places, formulas."""

import csv
import io
import json
import math
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from starlette.testclient import TestClient

from fairhuman.errors import DataError
from fairhuman.study.answers import Vote, Votes, read_votes, write_votes
from fairhuman.study.app import Access, create_study_app
from fairhuman.study.create import create_study
from fairhuman.study.design import make_trials
from fairhuman.study.exclusion import judge_participants
from fairhuman.study.recorded import read_database
from fairhuman.study.shown import load_shown
from fairhuman.study.store import MAX_CHANGES, SESSIONS, VISITORS, open_store
from fairhuman.study.study import (
    CREATION,
    DATABASE,
    DESIGN,
    OVERALL,
    PICTURES,
    SETTINGS,
    Design,
    ExclusionSettings,
    StudyItem,
    StudySettings,
    Trial,
    load_design,
    load_settings,
    load_study,
)
from fairhuman.study.texts import load_texts
from fairhuman.web.app import RefusedError
from fairhuman.web.database import transaction
from helpers.simulated_votes import vote
from helpers.small_study import ADMIN, write_study
from helpers.study_pictures import write_method

HERE = "http://127.0.0.1:8000"
QUESTIONS = [OVERALL.model_dump()]

# The blind


def checks_of(settings: StudySettings) -> list[StudyItem]:
    return [StudyItem("", {"sharp": "", "blurred": ""}, {}, "sharp") for _ in range(settings.checks)]


def visible(trials: Sequence[Trial], items: int) -> list[object]:
    """What a participant who recognises spoilt pictures sees of a session: where checks are, and their sides."""
    return [trial.shown.index("sharp") if trial.item >= items else None for trial in trials]


def guess(seen: list[object], items: int) -> list[tuple[str, ...]] | None:
    """Sides from the seed 0 and likely numbers of participants, where exactly the checks that were seen come out."""
    for participants in (20, 10, 24):
        settings = StudySettings(items=items, participants=participants, questions=QUESTIONS)
        for trials in make_trials(settings, ["A", "B"], checks_of(settings)):
            if visible(trials, items) == seen:
                return [trial.shown for trial in trials if trial.item < items]
    return None


def test_the_sides_can_t_be_worked_out_from_the_seed() -> None:
    settings = StudySettings(items=20, participants=20, questions=QUESTIONS)
    rates = {}
    for secret in (None, "5f" * 16):
        right, told = 0, 0
        for trials in make_trials(settings, ["A", "B"], checks_of(settings), secret)[:8]:
            guessed = guess(visible(trials, 20), 20) or [("A", "B")] * 20
            real = [trial.shown for trial in trials if trial.item < 20]
            right += sum(a == b for a, b in zip(guessed, real, strict=True))
            told += len(real)
        rates[secret] = right / told
    assert rates[None] > 0.9, "without a secret the attack works, so this test can fail"
    assert abs(rates["5f" * 16] - 0.5) < 0.15, "160 guesses: 0.5 ± 0.04"


def test_the_secret_is_the_researcher_s_alone_and_makes_the_design_again(tmp_path: Path) -> None:
    methods = {"base": write_method(tmp_path / "base", 50), "ours": write_method(tmp_path / "ours", 200)}
    settings = StudySettings(items=5, participants=4, questions=QUESTIONS)
    one, two = (create_study(tmp_path / name, methods, None, settings, print) for name in "ab")
    assert one.participants != two.participants, "each study has its own secret"
    secret = json.loads((tmp_path / "a" / CREATION).read_text())["secret"]
    assert len(bytes.fromhex(secret)) == 16
    again = create_study(tmp_path / "c", methods, None, settings, print, secret=secret)
    assert again.participants == one.participants
    for name in (DESIGN, CREATION):
        assert stat.S_IMODE((tmp_path / "a" / name).stat().st_mode) == 0o600
    assert secret not in (tmp_path / "a" / DESIGN).read_text() + (tmp_path / "a" / SETTINGS).read_text()


def test_private_files_are_closed_from_their_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever anything has been written, the file under its temporary name is its owner's alone."""
    methods = {"base": write_method(tmp_path / "base", 50), "ours": write_method(tmp_path / "ours", 200)}
    modes: dict[str, set[int]] = {}
    flush = os.fsync

    def look(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").resolve()
        modes.setdefault(path.name.removeprefix(".").removesuffix(".partial"), set()).add(
            stat.S_IMODE(os.fstat(handle).st_mode)
        )
        flush(handle)

    opened = os.open

    def note(path: object, flags: int, mode: int = 0o777, **options: object) -> int:
        if flags & os.O_CREAT:
            modes.setdefault(Path(str(path)).name.removeprefix(".").removesuffix(".partial"), set()).add(mode)
        return opened(path, flags, mode, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "open", note)
    settings = StudySettings(items=5, participants=4, questions=QUESTIONS)
    create_study(tmp_path / "study", methods, None, settings, print)
    assert (modes[DESIGN], modes[CREATION]) == ({0o600}, {0o600})
    assert 0o600 not in modes[SETTINGS]


# What pictures tell


def natural(number: int, side: int = 160) -> Image.Image:
    """A picture with the spectrum of photographs, 1/f, in three correlated channels, and an edge."""
    generator = np.random.default_rng(number)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    channels = []
    for _ in range(3):
        spectrum = np.fft.fft2(generator.normal(size=(side, side))) / frequency
        channels.append(np.real(np.fft.ifft2(spectrum)))
    grey, *colours = (channel / channel.std() for channel in channels)
    grey[:, generator.integers(20, side - 20) :] += 1.0
    rgb = np.stack([grey, grey + 0.3 * colours[0], grey + 0.3 * colours[1]], axis=2)
    return Image.fromarray(np.clip(128 + 40 * rgb, 0, 255).astype(np.uint8))


def fine_energy(file: Path) -> float:
    """How much of a served picture is in the high frequencies of its 8 x 8 blocks, which a JPEG sets to zero."""
    with Image.open(file) as image:
        grey = np.asarray(image.convert("L"), np.float64)
    rows, columns = grey.shape[0] // 8 * 8, grey.shape[1] // 8 * 8
    blocks = grey[:rows, :columns].reshape(rows // 8, 8, columns // 8, 8).transpose(0, 2, 1, 3)
    spectrum = np.abs(dctn(blocks, axes=(2, 3), norm="ortho"))
    u, v = np.meshgrid(range(8), range(8))
    return float(
        np.log(np.median(spectrum[:, :, (u + v >= 9)]) / np.median(spectrum[:, :, (u + v >= 3) & (u + v < 6)]))
    )


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two methods that differ in nothing but their files: PNG, and JPEG of quality 70 with halved colours."""
    folder = tmp_path_factory.mktemp("unlike")
    for name in ("png", "jpeg"):
        (folder / name).mkdir()
    for number in range(24):
        natural(number).save(folder / "png" / f"{number}.png")
        natural(number).save(folder / "jpeg" / f"{number}.jpg", quality=70, subsampling="4:2:0")
    (folder / "prompts.txt").write_text("\n".join(f"prompt {number}" for number in range(24)))
    return {name: folder / name for name in ("png", "jpeg")}


def told_apart(folder: Path, methods: dict[str, Path], equalize: bool) -> tuple[float, list[str]]:
    """How often the picture with less fine detail is the JPEG's, half where both have the same; what `create` said."""
    said: list[str] = []
    settings = StudySettings(items=24, participants=2, checks=1, questions=QUESTIONS, equalize=equalize)
    prompts = methods["png"].parent / "prompts.txt"
    design = create_study(folder, methods, prompts, settings, said.append)
    files = [{name: folder / PICTURES / file for name, file in item.pictures.items()} for item in design.items[:24]]
    more = [np.sign(fine_energy(of["png"]) - fine_energy(of["jpeg"])) for of in files]
    return float(np.mean(more)) / 2 + 0.5, said


def test_pictures_of_unlike_files_are_told_apart_and_the_study_says_so(tmp_path: Path, unlike: dict[str, Path]) -> None:
    rate, said = told_apart(tmp_path / "study", unlike, equalize=False)
    assert rate > 0.9, "the attack works, so the next test can fail"
    (note,) = [text for text in said if "can be measured" in text]
    assert "differ in encoding (png: 24 PNG; jpeg: 24 JPEG of quality 70, 4:2:0)" in note
    assert "--equalize" in note


def test_equalized_pictures_aren_t_told_apart(tmp_path: Path, unlike: dict[str, Path]) -> None:
    rate, said = told_apart(tmp_path / "study", unlike, equalize=True)
    assert 0.2 < rate < 0.8, "24 guesses: 0.5 ± 0.1"
    assert any("encoded 4 times as JPEG of quality 70, 4:2:0" in text for text in said)
    assert not any("--equalize" in text for text in said)
    design = load_design(tmp_path / "study")
    sizes = set()
    for item in design.items:
        for name in item.pictures.values():
            with Image.open(tmp_path / "study" / PICTURES / name) as picture:
                sizes.add(picture.size)
    assert sizes == {(140, 140)}, "of checks too"


def test_alike_files_need_no_word(tmp_path: Path) -> None:
    methods = {"base": write_method(tmp_path / "base", 50), "ours": write_method(tmp_path / "ours", 200)}
    said: list[str] = []
    create_study(tmp_path / "study", methods, None, StudySettings(items=5, questions=QUESTIONS), said.append)
    assert not any("differ in" in text or "Equalized" in text for text in said)


# Times


DESIGN_OF_TIMES = Design(
    ("A", "B"),
    tuple(StudyItem(f"{n}", {"A": f"a{n}", "B": f"b{n}"}, {"A": (), "B": ()}) for n in range(23)),
    ((*(Trial(n, ("A", "B")) for n in range(23)),),) * 2,
)


def answered(path: Path, given: Sequence[tuple[float, float]], consented: float = 0.0) -> list[Vote]:
    """Votes of participant 0 whose answers came at these seconds, and claim these seconds."""
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def at(seconds: float) -> str:
        return (start + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")

    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE sessions (participant INTEGER, token TEXT, consented TEXT)")
        for name in ("answers", "events"):
            connection.execute(f"CREATE TABLE {name} (id, participant, trial, question, choice, seconds, given)")
        connection.execute("INSERT INTO sessions VALUES (0, 'x', ?)", [at(consented)])
        for number, (moment, seconds) in enumerate(given):
            row = (number, 0, number // 2, ("overall", "regional")[number % 2], 0, seconds, at(moment))
            for name in ("answers", "events"):
                connection.execute(f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    connection.close()
    return read_database(path, DESIGN_OF_TIMES, ("overall", "regional"), timed=True).votes


def overclaimed(votes: Sequence[Vote]) -> tuple[int, bool]:
    """Number of answers with too long a time, and whether the rule about them excludes the participant."""
    rules = ExclusionSettings(max_same_side=1.0, max_failed_checks=99)
    (one,) = judge_participants(Votes(list(votes)), rules)
    return one.overclaimed, any("server's clock" in reason for reason in one.reasons)


def test_times_that_can_t_have_passed_are_flagged_and_excluded(tmp_path: Path) -> None:
    """46 answers in 2.7 seconds, each of which claims 6.5 seconds."""
    votes = answered(tmp_path / "a.sqlite", [(0.06 * n, 6.5) for n in range(1, 47)])
    assert overclaimed(votes) == (46, True)
    assert all(one.seconds == 6.5 for one in votes), "what was claimed is kept"


@pytest.mark.parametrize(
    "given",
    [
        [(5.0 * n, 4.8) for n in range(1, 47)],  # at the pace that is claimed
        [*((5.0 * n, 4.8) for n in range(1, 41)), *((900.0 + 0.1 * n, 5.0) for n in range(6))],  # six without a network
        [(5.0, 4.0), (600.0, 590.0), *((600.0 + 5 * n, 4.9) for n in range(1, 20)), (700.0, 695.0)],  # two devices
    ],
    ids=["honest", "offline", "two devices"],
)
def test_times_that_can_have_passed_exclude_nobody(tmp_path: Path, given: list[tuple[float, float]]) -> None:
    assert not overclaimed(answered(tmp_path / "a.sqlite", given))[1]


def test_a_clock_that_is_set_back_costs_one_answer_at_most(tmp_path: Path) -> None:
    given = [(5.0 * n - (3600 if n > 20 else 0), 4.9) for n in range(1, 47)]
    assert overclaimed(answered(tmp_path / "a.sqlite", given)) == (1, False)


def test_a_table_of_answers_keeps_the_flags(tmp_path: Path) -> None:
    votes = answered(tmp_path / "a.sqlite", [(0.06 * n, 6.5) for n in range(1, 47)])
    for kind in ("csv", "json"):
        write_votes(votes, tmp_path / f"a.{kind}")
        assert overclaimed(read_votes(tmp_path / f"a.{kind}").votes) == (46, True)


def test_an_older_study_has_no_rule_that_it_didn_t_register(study_folder) -> None:
    folder = study_folder()
    assert load_settings(folder).exclude.max_overclaimed == 0.1
    text = (folder / SETTINGS).read_text()
    (folder / SETTINGS).write_text(text.replace("  max_overclaimed: 0.1\n", ""))
    assert load_study(folder).settings.exclude.max_overclaimed is None
    assert load_shown(folder).settings.exclude.max_overclaimed is None


# Places of the open link


@pytest.fixture
def opened(study_folder, tmp_path):
    """An open study of four places: its folder, client, and store."""
    folder = study_folder(participants=4)
    study = load_shown(folder)
    store = open_store(study, folder / DATABASE)
    app = create_study_app(study, store, Access(ADMIN, open_link=True))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield folder, client, store


def join(client: TestClient, letter: str) -> int:
    return client.post("/api/join", json={"token": letter * 43}, headers={"origin": HERE}).status_code


def answer(client: TestClient, letter: str, number: int = 0) -> int:
    body = {"key": f"{number:016d}", "trial": 0, "question": "overall", "choice": number % 2, "seconds": 0.1}
    return client.post(f"/p/{letter * 43}/api/answers", json=body, headers={"origin": HERE}).status_code


def age(store, minutes: float) -> None:
    """Make all visitors' arrivals earlier."""
    with transaction(store.engine) as connection:
        for row in connection.execute(VISITORS.select()).all():
            then = datetime.fromisoformat(row.joined) - timedelta(minutes=minutes)
            this = VISITORS.c.participant == row.participant
            text = then.isoformat(timespec="milliseconds")
            connection.execute(VISITORS.update().where(this).values(joined=text))


def test_one_address_can_t_take_all_places_at_once(opened) -> None:
    _, client, _ = opened
    assert [join(client, letter) for letter in "aabbabc"] == [200] * 6 + [429], "who comes back doesn't count"


def test_one_ipv6_network_can_t_take_all_places_at_once(opened) -> None:
    app = opened[1].app
    clients = [TestClient(app, base_url=HERE, client=(f"2001:db8::{n}", 9)) for n in range(1, 4)]
    assert [join(client, letter) for client, letter in zip(clients, "abc", strict=True)] == [200, 200, 429]
    assert join(TestClient(app, base_url=HERE, client=("2001:db8:0:1::1", 9)), "c") == 200


def test_a_place_without_an_answer_goes_to_the_next_visitor_once_it_expired(opened, monkeypatch) -> None:
    _, client, store = opened
    for letter in "abcd":
        store.join(letter * 43)
    assert answer(client, "b") == 200
    assert join(client, "e") == 409, "nothing has expired"
    age(store, 61)
    assert join(client, "e") == 200
    assert store.participant_of("e" * 43) == 0, "the place that waited the longest"
    assert store.participant_of("a" * 43) is None
    assert answer(client, "a", 1) == 404
    assert answer(client, "c", 1) == 200, "late, but nobody needed the place"
    assert join(client, "f") == 200
    assert store.participant_of("f" * 43) == 3
    assert join(client, "g") in (409, 429)
    with pytest.raises(RefusedError, match="all its participants"):
        store.join("g" * 43)
    assert [store.participant_of(letter * 43) for letter in "bc"] == [1, 2], "answers keep their places"


def test_a_link_that_ended_between_two_steps_saves_nothing(opened) -> None:
    _, _, store = opened
    store.join("a" * 43)
    store.free(0)
    store.join("b" * 43)
    with pytest.raises(RefusedError) as refused:
        store.answer(0, "k" * 16, 0, "overall", 1, 1.0, "a" * 43)
    assert refused.value.status == 404
    assert store.answers(0) == []


def test_the_admin_page_lists_places_without_an_answer_and_frees_them(opened) -> None:
    _, client, store = opened
    store.invite({3: "i" * 43})
    store.consent(3)
    for letter in "abc":
        store.join(letter * 43)
    answer(client, "b")
    page = client.get(f"/admin/{ADMIN}").text
    assert "Places without an answer" in page
    frees = [f"/admin/{ADMIN}/places/{number}/free" for number in range(4)]
    assert [free in page for free in frees] == [True, False, True, False]

    def post(path: str, origin: str = HERE) -> int:
        return client.post(path, headers={"origin": origin}, follow_redirects=False).status_code

    assert post(frees[0], "http://evil.example") == 403
    assert post(frees[0].replace(ADMIN, "x" * 24)) == 404
    assert [post(frees[1]), post(frees[3])] == [409, 409], "answers, and invited people, stay"
    for number in ("9" * 20, "9" * 5000, "-1", "00", "x"):
        assert post(f"/admin/{ADMIN}/places/{number}/free") == 404
    assert post(frees[0]) == 303
    assert store.participant_of("a" * 43) is None
    with transaction(store.engine) as connection:
        assert set(connection.execute(SESSIONS.select().with_only_columns(SESSIONS.c.participant)).scalars()) == {
            1,
            2,
            3,
        }


def test_an_answer_is_changed_twenty_times_at_most(opened) -> None:
    folder, client, store = opened
    store.join("a" * 43)
    found = [answer(client, "a", number) for number in range(MAX_CHANGES + 4)]
    assert found == [200] * (MAX_CHANGES + 1) + [409] * 3
    assert answer(client, "a", 3) == 200, "one that was accepted is still known"
    connection = sqlite3.connect(folder / DATABASE)
    assert connection.execute("SELECT count(*) FROM events").fetchone() == (MAX_CHANGES + 1,)
    connection.close()


# Tables, texts, disks


def formulas() -> list[str]:
    return ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", "'quoted'", "plain", "＝1"]


def test_cells_are_no_formulas_and_come_back_as_they_were(tmp_path: Path) -> None:
    votes = [
        Vote(f"{n}", n, "overall", text, (text.strip(), "B"), text.strip(), 1.0, "", f"item {n}")
        for n, text in enumerate(formulas())
    ]
    write_votes(votes, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [cell for row in rows for cell in row.values() if cell[:1] in tuple("=+-@\t\r＝")] == []
    assert [repr(one) for one in read_votes(tmp_path / "a.csv").votes] == [repr(one) for one in votes]


def test_a_foreign_table_s_formulas_are_texts_in_ours(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("participant,trial,question,shown,chosen,prompt\n=cmd,0,overall,-A|B,-A,=HYPERLINK()\n")
    (one,) = read_votes(foreign).votes
    assert (one.participant, one.chosen, one.prompt) == ("=cmd", "-A", "=HYPERLINK()")
    write_votes([one], tmp_path / "ours.csv")
    assert "\n'=cmd,0,overall,'=HYPERLINK(),'-A|B,'-A," in (tmp_path / "ours.csv").read_text().replace("\r", "")
    assert read_votes(tmp_path / "ours.csv").votes == [one] or math.isnan(one.seconds)


BOMB = "[" * 100_000


@pytest.mark.parametrize(
    "content", [BOMB, f'{{"a": {BOMB}}}', f'{{"items": {"9" * 5000}}}', '[{"participant": 1e999}]']
)
def test_bombs_are_one_line(study_folder, tmp_path, content: str) -> None:
    folder = study_folder()
    for name, read in (
        (DESIGN, lambda: load_design(folder)),
        ("answers.json", lambda: read_votes(folder / "answers.json")),
        ("texts.json", lambda: load_texts(folder / "texts.json")),
        (CREATION, lambda: load_study_creation(folder)),
    ):
        before = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text(content)
        with pytest.raises(DataError, match=name) as error:
            read()
        assert "\n" not in str(error.value)
        if before is not None:
            (folder / name).write_bytes(before)


def load_study_creation(folder: Path) -> object:
    return load_study(folder).creation()


def test_links_are_their_owner_s_alone(typed, study_folder, tmp_path: Path) -> None:
    out = tmp_path / "links.csv"
    code, _, errors = typed("study", "links", study_folder(), "--out", out)
    assert code == 0, errors
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_a_study_on_a_disk_that_can_t_be_written_is_exported_and_reported() -> None:
    """As another user, as root may write anywhere; the log of a server that was killed holds the last answer."""
    place = Path(tempfile.mkdtemp(prefix="study-readonly-"))
    try:
        folder = write_study(place / "disk" / "study", participants=2, trials=2)
        study = load_shown(folder)
        store = open_store(study, folder / DATABASE)
        store.invite({0: "a" * 43})
        store.consent(0)
        store.answer(0, "k" * 16, 0, "overall", 1, 1.0)
        for name in (DATABASE, f"{DATABASE}-wal"):  # as a kill leaves them
            shutil.copyfile(folder / name, place / name)
        store.close()
        for name in (DATABASE, f"{DATABASE}-wal"):
            (folder / f"{DATABASE}-shm").unlink(missing_ok=True)
            shutil.copyfile(place / name, folder / name)
        assert (folder / f"{DATABASE}-wal").stat().st_size > 0
        out = place / "out"
        out.mkdir(mode=0o777)
        out.chmod(0o777)
        as_user: list[str] = []
        if os.geteuid() == 0:
            as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
            if subprocess.run([*as_user, sys.executable, "-c", ""], check=False, capture_output=True).returncode:
                pytest.skip(f"{sys.executable} can't be started by another user, as root's folders are closed to them")
        for path in (place, *(place / "disk").rglob("*"), place / "disk"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        environment = {**os.environ, "HOME": str(out), "MPLCONFIGDIR": str(out), "PYTHONDONTWRITEBYTECODE": "1"}
        for command in (
            ["export", str(folder), str(out / "a.csv")],
            ["report", str(folder), "--out", str(out / "report")],
        ):
            done = subprocess.run(
                [*as_user, sys.executable, "-m", "fairhuman.cli", "study", *command],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "1 answer of 1 participant" in done.stdout
        rows = list(csv.DictReader(io.StringIO((out / "a.csv").read_text())))
        assert [row["trial"] for row in rows] == ["0"]
    finally:
        for path in (place, *place.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        shutil.rmtree(place)


def test_unknown_times_flag_nothing() -> None:
    assert overclaimed([vote(0, "AB", "A", n, trial=n) for n in range(4)]) == (0, False)


def test_a_link_in_place_of_a_picture_is_refused(study_folder, tmp_path: Path) -> None:
    folder, secret = study_folder(), tmp_path / "key"
    secret.write_text("secret")
    picture = sorted((folder / PICTURES).iterdir())[0]
    picture.unlink()
    picture.symlink_to(secret)
    with pytest.raises(DataError, match="must be a file of the study, not a link"):
        load_shown(folder)
