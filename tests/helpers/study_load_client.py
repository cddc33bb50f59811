"""Participants without a browser, in a process of their own: python load_client.py JOB, results beside it.

JOB is JSON: address, tokens, answers (of each), rate (answers a second of all together; null: as fast as it goes). Each
acknowledged answer is a line of JOB.acknowledged: participant, key, seconds it took, how often it was sent.
"""

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

GIVE_UP_SECONDS = 120


class Participant:
    def __init__(self, job: dict, number: int, say) -> None:
        self.job, self.number, self.say = job, number, say
        self.place = urlsplit(job["address"]).netloc
        self.root = f"/p/{job['tokens'][number]}"
        self.connection = http.client.HTTPConnection(self.place, timeout=30)

    def send(self, path: str, body: object = None) -> int:
        headers = {"Origin": self.job["address"], "Content-Type": "application/json"}
        self.connection.request("POST", self.root + path, json.dumps(body), headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def until_done(self, path: str, body: object = None) -> int:
        """Send until it is acknowledged, as the page does; how often that was."""
        for attempt in range(1, 100_000):
            try:
                status = self.send(path, body)
            except (OSError, http.client.HTTPException):
                self.connection.close()
                status = None
            if status in (200, 303):
                return attempt
            assert status in (None, 429, 503), status
            assert time.monotonic() < self.job["end"]
            time.sleep(0.1)
        raise AssertionError

    def run(self, start: float) -> None:
        count = len(self.job["tokens"])
        for i in range(self.job["answers"]):
            if self.job["rate"]:
                time.sleep(max(0.0, start + (i * count + self.number) / self.job["rate"] - time.monotonic()))
            key = f"answer-{self.number:04}-{i:04}"
            question = ("overall", "regional")[i % 2]
            choice = (0, 1, None)[(i + self.number) % 3]
            body = {"key": key, "trial": i // 2, "question": question, "choice": choice, "seconds": 1.5}
            began = time.monotonic()
            sent = self.until_done("/api/answers", body)
            self.say([self.number, key, time.monotonic() - began, sent])


def main(path: Path) -> None:
    job = {**json.loads(path.read_text()), "end": time.monotonic() + GIVE_UP_SECONDS}
    lock, failed = threading.Lock(), []
    with Path(f"{path}.acknowledged").open("w") as log:

        def say(values: list) -> None:
            with lock:
                log.write(json.dumps(values) + "\n")
                log.flush()

        people = [Participant(job, number, say) for number in range(len(job["tokens"]))]
        for person in people:
            person.until_done("/consent")

        def run(person: Participant, start: float) -> None:
            try:
                person.run(start)
            except BaseException as error:
                failed.append(repr(error))

        start = time.monotonic() + 0.2
        threads = [threading.Thread(target=run, args=(person, start)) for person in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sys.exit("; ".join(failed) or 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
