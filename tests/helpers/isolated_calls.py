"""Calls for a process of their own: some end badly."""

import os
import time


def call(argument: object) -> object:
    if argument == "crash":
        os._exit(7)
    if argument == "wait":
        time.sleep(60)
    if argument == "raise":
        raise ValueError("no such thing")
    return argument, os.getpid()
