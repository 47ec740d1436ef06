"""How replies are compared, and every difference from Debian's Redis 7.0.15 that is meant to be, with its reason.

Two lists: ACCEPTED, where the reply differs on purpose, and the shapes of replies that no two servers give alike
(times, identifiers, random choices), which are compared as far as they can be.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Callable

from wire import parse


@dataclass(frozen=True)
class Difference:
    """A reply that may differ: for which command, when, and why."""

    reason: str
    applies: Callable[[list[bytes], bytes, bytes], bool]
    # Whether the two servers hold different things from here on: the sequence ends, as nothing after it can agree.
    diverges: bool = False


def is_error(raw: bytes) -> bool:
    return raw.startswith(b"-")


def rounded_sum(arguments: list[bytes], ours: bytes, theirs: bytes) -> bool:
    """INCRBYFLOAT: both give a number, and the two are the same up to the 64 significant bits that Redis adds with."""
    if arguments[0].upper() != b"INCRBYFLOAT" or not (ours.startswith(b"$") and theirs.startswith(b"$")):
        return False
    left, right = Decimal(parse(ours).decode()), Decimal(parse(theirs).decode())
    return abs(left - right) <= max(abs(left), abs(right)) * Decimal(2) ** -62


def hexadecimal_sum(arguments: list[bytes], ours: bytes, theirs: bytes) -> bool:
    """INCRBYFLOAT by 0x10, or of a value that begins with 0x10: the only hexadecimal numbers that are generated."""
    if arguments[0].upper() != b"INCRBYFLOAT" or ours != b"-ERR value is not a valid float\r\n":
        return False
    if theirs == b"-ERR increment would produce NaN or Infinity\r\n":
        return arguments[2].lower().lstrip(b"-+") in (b"inf", b"infinity")
    if theirs[:1] != b"$":
        return False
    if arguments[2].startswith(b"0x"):
        return True
    old = Decimal(parse(theirs).decode()) - Decimal(arguments[2].decode())
    return old == int(old) and f"{abs(int(old)):x}".startswith("10")


def command(arguments: list[bytes], *names: bytes) -> bool:
    """Whether this is one of the named commands (a name and its subcommand with a space between)."""
    return arguments[0].upper() in names or b" ".join(arguments[:2]).upper() in names


# From the most compact one on.
ENCODINGS = [b"$3\r\nint\r\n", b"$6\r\nembstr\r\n", b"$3\r\nraw\r\n"]

ACCEPTED: list[Difference] = [
    Difference("INCRBYFLOAT adds in decimal here, in binary with 64 bits there", rounded_sum),
    Difference(
        "COMMAND GETKEYS takes commands without arguments as Redis 7.2 does; 7.0 calls that a wrong number of arguments",
        lambda arguments, ours, theirs: command(arguments, b"COMMAND GETKEYS") and len(arguments) == 3
        and theirs == b"-ERR wrong number of arguments for 'command|getkeys' command\r\n",
    ),
    Difference(
        "hexadecimal floats are refused; Redis takes what strtold takes",
        hexadecimal_sum,
        diverges=True,
    ),
    Difference(
        "OBJECT ENCODING tells the most compact form here; Redis goes by how the value was made (APPEND, SETRANGE, sums)",
        lambda arguments, ours, theirs: command(arguments, b"OBJECT ENCODING")
        and ours in ENCODINGS and theirs in ENCODINGS[ENCODINGS.index(ours):],
    ),
    Difference(
        "an expired key is gone for MEMORY USAGE too; Redis still sees it until something else has noticed",
        lambda arguments, ours, theirs: command(arguments, b"MEMORY USAGE") and ours in (b"_\r\n", b"$-1\r\n")
        and theirs.startswith(b":"),
    ),
]


def same_kind(ours: bytes, theirs: bytes) -> bool:
    """Both errors with the same text, or both replies of the same type."""
    if is_error(ours) or is_error(theirs):
        return ours == theirs
    return ours[:1] == theirs[:1] and (ours[:2] == b"$-") == (theirs[:2] == b"$-")


def close(tolerance: int):
    """Whole numbers that may differ by the time between the two calls; what is not positive must be equal."""

    def compare(ours: bytes, theirs: bytes) -> bool:
        if ours == theirs:
            return True
        if ours[:1] != b":" or theirs[:1] != b":":
            return False
        left, right = int(ours[1:]), int(theirs[1:])
        return left > 0 and right > 0 and abs(left - right) <= tolerance

    return compare


def whole_scan_or_kind(ours: bytes, theirs: bytes) -> bool:
    """An iteration followed to its end must have seen the same keys; a cursor from nowhere means what it likes."""
    if ours.startswith(b"scanned") or theirs.startswith(b"scanned"):
        return ours == theirs
    return same_kind(ours, theirs)


def unordered(ours: bytes, theirs: bytes) -> bool:
    """Arrays whose order means nothing."""
    if is_error(ours) or is_error(theirs):
        return ours == theirs
    return ours[:1] == theirs[:1] and sorted(parse(ours)) == sorted(parse(theirs))


SHAPES: dict[bytes, Callable[[bytes, bytes], bool]] = {
    b"TTL": close(3),
    b"PTTL": close(3000),
    b"EXPIRETIME": close(3),
    b"PEXPIRETIME": close(3000),
    b"KEYS": unordered,
    b"SCAN": whole_scan_or_kind,
    b"RANDOMKEY": same_kind,
    b"TIME": same_kind,
    b"LASTSAVE": same_kind,
    b"ROLE": same_kind,
    b"HELLO": same_kind,
    b"CLIENT ID": same_kind,
    b"CLIENT INFO": same_kind,
    b"CLIENT LIST": same_kind,
    b"MEMORY USAGE": same_kind,
    b"OBJECT IDLETIME": same_kind,
    b"OBJECT REFCOUNT": same_kind,
    b"DEBUG SLEEP": same_kind,
    b"SLOWLOG GET": same_kind,
}


def shape_of(arguments: list[bytes]) -> Callable[[bytes, bytes], bool] | None:
    """The rule for a command, by its name or its name and subcommand."""
    name = arguments[0].upper()
    if name == b"COMMAND" and len(arguments) == 1:
        return same_kind  # the table of all commands: each server has its own
    if name in SHAPES:
        return SHAPES[name]
    return SHAPES.get(b" ".join(arguments[:2]).upper()) if len(arguments) > 1 else None


class Diverged(Exception):
    """A listed difference after which the servers hold different things."""


def agree(arguments: list[bytes], ours: bytes, theirs: bytes, used: dict[str, int]) -> bool:
    """Whether two replies are the same, or differ for a listed reason (counted in `used`). Raises `Diverged`."""
    if ours == theirs:
        return True
    shape = shape_of(arguments)
    if shape is not None and shape(ours, theirs):
        return True
    for difference in ACCEPTED:
        if difference.applies(arguments, ours, theirs):
            used[difference.reason] = used.get(difference.reason, 0) + 1
            if difference.diverges:
                raise Diverged
            return True
    return False
