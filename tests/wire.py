"""A RESP reader that keeps what client libraries hide: the type of every reply, errors included, and its exact bytes."""

import socket


def encode(*arguments) -> bytes:
    """A request as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        if isinstance(argument, str):
            argument = argument.encode()
        elif not isinstance(argument, bytes):
            argument = str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
    return b"".join(parts)


class Connection:
    """A connection that returns raw replies: the bytes from type byte to last CRLF."""

    def __init__(self, port: int, timeout_s: float = 30.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the connection without QUIT."""
        self.socket.close()

    def command(self, *arguments) -> bytes:
        """Sends one request and returns its raw reply."""
        self.socket.sendall(encode(*arguments))
        return self.reply()

    def send(self, *arguments):
        """Sends one request and does not wait."""
        self.socket.sendall(encode(*arguments))

    def reply(self) -> bytes:
        """Reads one whole reply; raises ConnectionError when the server closes first."""
        end = self._reply_end(0)
        raw = bytes(self.buffer[:end])
        del self.buffer[:end]
        return raw

    def _line_end(self, start: int) -> int:
        scanned = start
        while (found := self.buffer.find(b"\r\n", scanned)) < 0:
            scanned = max(start, len(self.buffer) - 1)
            self._fill()
        return found

    def _fill(self):
        received = self.socket.recv(1 << 16)
        if not received:
            raise ConnectionError(f"closed by the server; unread: {bytes(self.buffer[:100])!r}")
        self.buffer += received

    def _reply_end(self, start: int) -> int:
        line_end = self._line_end(start)
        kind = self.buffer[start:start + 1]
        end = line_end + 2
        if kind in b"+-:_,#(":
            return end
        count = int(self.buffer[start + 1:line_end])
        if kind in b"$=!":
            if count < 0:
                return end
            while len(self.buffer) < end + count + 2:
                self._fill()
            return end + count + 2
        if kind in b"*~>%|":
            for _ in range(max(count, 0) * (2 if kind in b"%|" else 1)):
                end = self._reply_end(end)
            # An attribute stands before the reply that it describes.
            return self._reply_end(end) if kind == b"|" else end
        raise ValueError(f"not a RESP type byte: {bytes(self.buffer[start:start + 20])!r}")


def parse(raw: bytes):
    """A raw reply as Python values: errors as `Exception`, nulls as None, maps as lists of pairs in order."""
    value, end = _parse(raw, 0)
    assert end == len(raw), f"{len(raw) - end} bytes follow the reply {raw[:80]!r}"
    return value


def _parse(raw: bytes, start: int):
    line_end = raw.index(b"\r\n", start)
    kind, line, end = raw[start:start + 1], raw[start + 1:line_end], line_end + 2
    if kind == b"+":
        return line.decode(errors="surrogateescape"), end
    if kind == b"-":
        return RuntimeError(line.decode(errors="surrogateescape")), end
    if kind in b":(":
        return int(line), end
    if kind == b"_":
        return None, end
    if kind == b",":
        return float(line), end
    if kind == b"#":
        return line == b"t", end
    count = int(line)
    if count < 0:
        return None, end
    if kind in b"$=!":
        return raw[end:end + count], end + count + 2
    items = []
    for _ in range(count * (2 if kind in b"%|" else 1)):
        item, end = _parse(raw, end)
        items.append(item)
    return (list(zip(items[::2], items[1::2])) if kind in b"%|" else items), end
