"""What data takes on the disk, and how many bytes are written for each byte that users write. Values are JSON-like texts:
names repeat, numbers and identifiers do not."""

import os
import random
import socket
import threading
import time
from pathlib import Path

from load import FILL_BATCH
from servers import Bowline, Redis, Server

COMPRESSIONS = ("none", "lz4", "zstd")
# Texts that are made; keys take them in turn.
TEXTS = 20_000
SEED = 7


class JsonTexts:
    """JSON-like values of about so many bytes."""

    def __init__(self, value_bytes: int):
        chosen = random.Random(SEED)
        syllables = "an ber cor da el fi gor ha in jo ka lu mar ne or pa ra sol ta ver wi zen tion ment ing able".split()
        self.words = ["".join(chosen.choices(syllables, k=chosen.randint(1, 3))) for _ in range(3000)]
        self.texts = [self.text(chosen, value_bytes) for _ in range(TEXTS)]

    def text(self, chosen: random.Random, value_bytes: int) -> bytes:
        """One of them, between nine tenths and eleven tenths of the length."""
        word = lambda: self.words[min(chosen.randrange(3000), chosen.randrange(3000))]
        made = f'{{"id":{chosen.randrange(10**9)},"user":"{word()}","mail":"{word()}@{word()}.example","score":{chosen.random() * 100:.2f}'
        while len(made) < 0.9 * value_bytes - 40:
            made += (f',"{word()}":{{"sku":"{chosen.randrange(1 << 32):08x}","price":{chosen.randrange(50000) / 100},'
                     f'"at":"2026-{chosen.randint(1, 12):02}-{chosen.randint(1, 28):02}","note":"{" ".join(word() for _ in range(8))}"}}')
        return (made + "}").encode()


def write(server: Server, texts: list[bytes], keys) -> int:
    """SETs each of `keys` (numbers) in turn and waits for every answer; returns the bytes of keys and values."""
    keys = list(keys)
    with socket.create_connection(("127.0.0.1", server.port), timeout=300) as connection:
        answered = threading.Event()

        def take_answers():
            left = 5 * len(keys)
            while left > 0 and (answer := connection.recv(1 << 20)) and not answer.startswith(b"-"):
                left -= len(answer)
            if left == 0:
                answered.set()

        reader = threading.Thread(target=take_answers)
        reader.start()
        written = 0
        for start in range(0, len(keys), FILL_BATCH):
            batch = []
            for place, key in enumerate(keys[start:start + FILL_BATCH], start):
                value = texts[(key * 7919 + place) % len(texts)]
                batch.append(b"*3\r\n$3\r\nSET\r\n$16\r\nkey:%012d\r\n$%d\r\n%s\r\n" % (key, len(value), value))
                written += 16 + len(value)
            connection.sendall(b"".join(batch))
        reader.join()
        if not answered.is_set():
            raise RuntimeError(f"filling {server.name} failed")
    return written


def bytes_per_key(base: Path, value_bytes: int, keys: int) -> dict[str, float]:
    """Bytes of the checkpoint or the RDB file for each key, by compression, and `redis`."""
    texts = JsonTexts(value_bytes).texts
    found = {}
    servers = [(kind, Bowline(base, more=["--compression", kind]), "data/store.blocks") for kind in COMPRESSIONS]
    for kind, server, file in [*servers, ("redis", Redis(base), "dump.rdb")]:
        try:
            server.start()
            write(server, texts, range(keys))
            server.end_with("SAVE")
            found[kind] = os.stat(server.directory / file).st_blocks * 512 / keys
        finally:
            server.remove()
    return found


def written_bytes(server: Server) -> int:
    """What the process and its ended children gave to the disk."""
    told = Path(f"/proc/{server.process.pid}/io").read_text()
    return int(next(line.split()[1] for line in told.splitlines() if line.startswith("write_bytes")))


def amplification(base: Path, value_bytes: int, keys: int, overwrites: int) -> dict[str, float]:
    """Bytes given to the disk for each byte of keys and values, by compression, and `redis`: every key is there, then
    `overwrites` SETs of random keys, with checkpoints (or rewrites of the append-only file) as they become due, and one at
    the end."""
    texts, chosen = JsonTexts(value_bytes).texts, random.Random(SEED)
    order = [chosen.randrange(keys) for _ in range(overwrites)]
    found = {}
    due = ["--checkpoint-log-size", "64mb"]
    servers = [(kind, Bowline(base, more=[*due, "--compression", kind])) for kind in COMPRESSIONS]
    for kind, server in [*servers, ("redis", Redis(base, appendfsync="everysec", rewrites=True))]:
        try:
            server.start()
            write(server, texts, range(keys))
            settled(server)
            before = written_bytes(server)
            user = write(server, texts, order)
            settled(server)
            found[kind] = (written_bytes(server) - before) / user
        finally:
            server.remove()
    return found


def settled(server: Server):
    """Waits until nothing more is written in the background, for a checkpoint of ours that is asked for here too."""
    if isinstance(server, Bowline):
        server.ask(b"SAVE\r\n")
        return
    while server.figure("aof_rewrite_in_progress") or server.figure("aof_rewrite_scheduled"):
        time.sleep(0.1)
    # What is appended is synced every second.
    time.sleep(1.5)
