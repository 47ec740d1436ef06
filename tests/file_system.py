"""A small file system of a test's own: one that is soon full, or whose power can be cut.

Mounting needs root; where it is not permitted, or the tool that makes the file system is not there, the test is skipped
and says why.
"""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

import node as nodes

# EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same number: _IOR('X', 125, __u32).
IOC_GOINGDOWN = 0x8004587D
# What is not on the disk stays where it is, the journal too: as if the power went.
GOING_NOLOGFLUSH = 2

MAKE = {"ext4": ["mkfs.ext4", "-q", "-m", "0"], "xfs": ["mkfs.xfs", "-q"]}


class FileSystem:
    """An empty file system of `kind` (tmpfs, ext4, xfs) at the directory `place`, from entering it until leaving it."""

    def __init__(self, kind: str, place, megabytes: int):
        self.kind, self.place, self.megabytes = kind, Path(place), megabytes
        self.image = Path(f"{place}.image")

    def __enter__(self):
        if self.kind != "tmpfs":
            tool = nodes.tool(MAKE[self.kind][0])
            if tool is None:
                pytest.skip(f"{MAKE[self.kind][0]} is not installed")
            with open(self.image, "wb") as file:
                file.truncate(self.megabytes << 20)
            subprocess.run([tool, *MAKE[self.kind][1:], str(self.image)], check=True, capture_output=True)
        try:
            self.mount()
        except PermissionError as refused:
            self.image.unlink(missing_ok=True)
            pytest.skip(str(refused))
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)
        self.image.unlink(missing_ok=True)

    def mount(self):
        """Mounts it; a journal is replayed, as after any start of a machine."""
        command = ["mount", "-o", "loop", str(self.image), str(self.place)]
        if self.kind == "tmpfs":
            command = ["mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m", "tmpfs", str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(f"mounting {self.kind} is not permitted here: {done.stderr.strip()}")

    def unmount(self):
        """Unmounts it; nobody may have a file of it open."""
        subprocess.run(["umount", str(self.place)], check=True, capture_output=True)

    def cut_power(self):
        """Nothing more reaches the disk: from here on every read of it and every write to it fails."""
        directory = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, IOC_GOINGDOWN, struct.pack("I", GOING_NOLOGFLUSH))
        except OSError as refused:
            pytest.skip(f"this kernel does not shut down a file system of {self.kind}: {refused}")
        finally:
            os.close(directory)

    def free_bytes(self) -> int:
        """Bytes that a file may still take."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_frsize
