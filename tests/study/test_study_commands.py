"""`fairhuman study serve` and `links` as a user types them."""

import csv
import io
import json
import signal
import sqlite3
import urllib.error
import urllib.request

import pytest

from fairhuman.study.study import DATABASE
from fairhuman.study.texts import load_texts
from helpers.small_study import ADMIN


def links(typed, folder, *options):
    code, output, errors = typed("study", "links", folder, *options)
    assert code == 0, errors
    return list(csv.DictReader(io.StringIO(output))), errors


def test_links_are_printed_the_same_each_time_and_open_the_study(typed, study_folder, servers):
    folder = study_folder(participants=3)
    address, _ = servers.start(folder)
    rows, _ = links(typed, folder, "--url", address)
    assert [row["participant"] for row in rows] == ["0", "1", "2"]
    assert links(typed, folder, "--url", address)[0] == rows
    with urllib.request.urlopen(rows[2]["link"], timeout=30) as answer:
        assert b"I agree" in answer.read()
    with urllib.request.urlopen(f"{address}/admin/{ADMIN}", timeout=30) as answer:
        assert b"Links given out" in answer.read()


def test_links_go_to_a_file_and_those_of_visitors_are_left_out(typed, study_folder, make_app, tmp_path):
    folder = study_folder(participants=3)
    connection = sqlite3.connect(folder / DATABASE)
    make_app(folder, invited=False)
    connection.execute("INSERT INTO sessions VALUES (1, 'somebody else', NULL)")
    connection.commit()
    connection.close()
    out = tmp_path / "links.csv"
    rows, errors = links(typed, folder, "--url", "https://study.example.org/", "--out", out)
    assert rows == []  # nothing printed
    lines = out.read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["participant", "0", "2"]
    assert lines[1].startswith("0,https://study.example.org/p/")
    assert "1 left out" in errors


def test_links_without_an_address_say_what_they_assume(typed, study_folder):
    folder = study_folder(participants=1)
    for options, address in (((), "http://127.0.0.1:8080"), (("--port", 9001), "http://127.0.0.1:9001")):
        rows, errors = links(typed, folder, *options)
        assert rows[0]["link"].startswith(f"{address}/p/")
        assert f"the links begin with {address} and work on this machine, while study serve listens on" in errors
    assert links(typed, folder, "--url", "https://study.example.org")[1] == ""


def test_a_report_is_not_written_through_a_link(typed, study_folder, tmp_path):
    folder = study_folder()
    (folder / "report").symlink_to(tmp_path)
    code, _, errors = typed("study", "report", folder)
    assert (code, "report: must be a folder, but is a link; delete it, or give --out" in errors) == (1, True)


def test_a_dry_run_writes_nothing(typed, study_folder):
    folder = study_folder()
    before = sorted(folder.rglob("*"))
    for line in (["links"], ["serve"]):
        assert typed("study", line[0], folder, "--dry-run")[0] == 0
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--admin-token", "short"], 1, "at least 16 letters"),
        (["--admin-token", "with/slash-and-more-of-it"], 1, "at least 16 letters"),
        (["--url", "study.example.org"], 1, "url must be like"),
        (["--texts", "missing.json"], 1, "missing.json"),
        (["--port", "99999"], 1, "0..65535"),
        (["--host", "192.0.2.1"], 1, "can't listen on"),
        (["--database", "nonsense"], 1, "database can't be used"),
        (["--database", "postgresql://u:secret@127.0.0.1:1/x"], 1, "postgresql://…: the database can't be used"),
    ],
)
def test_what_can_t_be_served_is_told(typed, study_folder, options, code, said):
    found, output, errors = typed("study", "serve", study_folder(), *options)
    assert (found, said in errors) == (code, True), (output, errors)
    assert "secret" not in errors.replace("password", "")


def test_serving_says_where_and_ends_on_ctrl_c(study_folder, servers, tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps({**load_texts(), "invitation_text": "Nur mit Einladung."}))
    folder = study_folder()
    address, process = servers.start(folder, "--texts", str(path), "--url", "https://study.example.org")
    assert process.stdout.readline().strip() == "progress: https://study.example.org/admin/ADMIN-TOKEN"
    told = f"participants' links: fairhuman study links {folder} --url https://study.example.org"
    assert process.stdout.readline().strip() == told
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert "Nur mit Einladung." in answer.read().decode()
    for name, status in (("study.example.org", 200), ("evil.example", 400)):
        request = urllib.request.Request(f"{address}/health", headers={"Host": name})
        assert status_of(request) == status
    process.send_signal(signal.SIGINT)
    assert (process.wait(30), process.stdout.read()) == (0, "ended\n")


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


@pytest.mark.parametrize(("options", "last"), [((), 429), (("--proxy-headers", "127.0.0.1"), 404)])
def test_a_proxy_s_word_counts_only_where_it_was_asked_for(study_folder, servers, options, last):
    """Wrong links of many addresses, as the proxy says: without the option they are all the proxy's own."""
    address, _ = servers.start(study_folder(), *options)
    wrong = [
        urllib.request.Request(f"{address}/p/wrong", headers={"X-Forwarded-For": f"192.0.2.{number}"})
        for number in range(36)
    ]
    assert [status_of(request) for request in wrong][-1] == last
