"""Many participants at once from a second process, on both databases; killed servers; several servers."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from fairhuman.study.links import participant_tokens
from fairhuman.study.shown import load_shown
from fairhuman.study.store import open_store
from helpers.launched import free_port
from helpers.small_study import write_study


class Crowd:
    """A study, its database, and a process of participants."""

    def __init__(self, servers, folder: Path, database: str, people: int, answers: int) -> None:
        self.servers = servers
        self.folder, self.database, self.people, self.answers = folder, database, people, answers
        write_study(folder, participants=people, trials=(answers + 1) // 2, zooms=0, size=(16, 16))
        study = load_shown(folder)
        store = open_store(study, database)
        self.tokens = store.invite(participant_tokens(folder, range(people)))
        store.close()

    def start(self, address: str, rate: float | None) -> tuple[subprocess.Popen[str], Path]:
        tokens = [self.tokens[number] for number in range(self.people)]
        job = self.folder / f"job-{time.time_ns()}.json"
        job.write_text(json.dumps({"address": address, "tokens": tokens, "answers": self.answers, "rate": rate}))
        return self.servers.run([sys.executable, "-m", "helpers.study_load_client", str(job)]), job

    def stored(self, query: str) -> list[tuple]:
        engine = create_engine(self.database)
        with engine.connect() as connection:
            found = [tuple(row) for row in connection.execute(text(query))]
        engine.dispose()
        return found

    def check(self) -> None:
        """Every answer is there once, and is the one that was sent."""
        wanted = [
            (number, i // 2, ("overall", "regional")[i % 2], (0, 1, None)[(i + number) % 3])
            for number in range(self.people)
            for i in range(self.answers)
        ]
        query = "SELECT participant, trial, question, choice FROM answers ORDER BY participant, trial, question"
        assert self.stored(query) == wanted
        assert self.stored("SELECT count(*) FROM events") == [(len(wanted),)]


def acknowledged(job: Path) -> list[tuple[int, str, float, int]]:
    lines = Path(f"{job}.acknowledged").read_text().split("\n")[:-1]
    return [tuple(json.loads(line)) for line in lines]


def finish(process: subprocess.Popen[str]) -> None:
    assert process.wait(timeout=300) == 0


def serve_crowd(servers, tmp_path, database: str, people: int, answers: int, rate: float | None) -> np.ndarray:
    """Seconds that each answer took, once all are found to be stored."""
    crowd = Crowd(servers, tmp_path / "study", database, people, answers)
    address, _ = servers.start(crowd.folder, "--database", database)
    began = time.monotonic()
    process, job = crowd.start(address, rate)
    finish(process)
    crowd.check()
    seconds = np.array([row[2] for row in acknowledged(job)])
    kind = database.partition(":")[0]
    shown = ", ".join(f"p{q} {1000 * np.percentile(seconds, q):.1f} ms" for q in (50, 95, 99, 100))
    print(f"{kind}, {people} x {answers} at {rate or 'full speed'}: {shown}; {time.monotonic() - began:.1f} s in all")
    return seconds


@pytest.mark.parametrize("rate", [pytest.param(50.0, marks=pytest.mark.slow), None], ids=["paced", "burst"])
def test_a_small_crowd_loses_and_doubles_nothing(servers, tmp_path, database, rate):
    assert len(serve_crowd(servers, tmp_path, database, people=10, answers=12, rate=rate)) == 120


@pytest.mark.slow
def test_fifty_participants_at_fifty_answers_a_second_wait_a_tenth_of_a_second_at_most(servers, tmp_path, database):
    seconds = serve_crowd(servers, tmp_path, database, people=50, answers=100, rate=50.0)
    assert np.percentile(seconds, 99) <= 0.1


@pytest.mark.slow
def test_fifty_participants_at_once_lose_and_double_nothing(servers, tmp_path, database):
    serve_crowd(servers, tmp_path, database, people=50, answers=100, rate=None)


def kill_in_the_middle(servers, tmp_path, database, people: int, answers: int) -> None:
    """Kill -9 under load: what was acknowledged is there at once, and all of it in the end."""
    crowd = Crowd(servers, tmp_path / "study", database, people, answers)
    port = free_port()
    address, server = servers.start(crowd.folder, "--database", database, port=port)
    process, job = crowd.start(address, None)
    log = Path(f"{job}.acknowledged")
    while not log.exists() or log.read_text().count("\n") < people * answers // 3:
        assert process.poll() is None
        time.sleep(0.005)
    server.kill()
    server.wait()
    told = {(row[0], row[1]) for row in acknowledged(job)}
    kept = set(crowd.stored("SELECT participant, key FROM events"))
    assert people * answers // 3 <= len(told) < people * answers
    assert told <= kept
    servers.start(crowd.folder, "--database", database, port=port)
    finish(process)
    crowd.check()
    assert max(row[3] for row in acknowledged(job)) > 1  # some were sent again


def test_a_server_killed_under_a_small_crowd_keeps_what_it_acknowledged(servers, tmp_path, database):
    kill_in_the_middle(servers, tmp_path, database, people=10, answers=30)


@pytest.mark.slow
def test_a_server_killed_under_fifty_participants_keeps_what_it_acknowledged(servers, tmp_path, database):
    kill_in_the_middle(servers, tmp_path, database, people=50, answers=100)


def test_two_servers_of_one_study_share_its_participants(servers, tmp_path, database):
    """All participants send all their answers to both, as a proxy might after a lost reply."""
    crowd = Crowd(servers, tmp_path / "study", database, people=6, answers=10)
    addresses = [servers.start(crowd.folder, "--database", database)[0] for _ in range(2)]
    for process, _ in [crowd.start(address, None) for address in addresses]:
        finish(process)
    crowd.check()
