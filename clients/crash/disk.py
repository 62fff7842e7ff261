"""A disk whose power can be cut: an ext4 on a loop device, whose image lies on an ext4 on another loop device.

    folder/mount          what the gateway sees: the inner file system, on a loop device
    folder/platter/image  what was sent to that disk: read here, it is the disk with all of its write cache
    folder/platter.img    what reached the platter: the image as far as the disk was asked to flush it, or did by itself

Both loop devices go through the page cache, so each layer keeps for itself what nobody has synced: pages of files that
the kernel has not written back are not in `image`, and what came without a flush is not in `platter.img`. A cut copies
one of the two, at a moment at which no request is under way on that layer and none comes while the copy is made.
"""

import contextlib
import mmap
import os
import subprocess
import time
from pathlib import Path

from server import Failure

# What the inner disk holds, and the outer one with its journal and the tables of both.
DISK_BYTES, PLATTER_BYTES = 512 << 20, 640 << 20
TOOL_SECONDS_MAX = 60
# How often a copy is tried again because the kernel wrote meanwhile.
COPIES_MAX = 40
REST_SECONDS, REST_SECONDS_MAX = 0.02, 20
BLOCK = 4096


class Disk:
    def __init__(self, folder):
        self.folder, self.mount, self.platter = folder, folder / "mount", folder / "platter"
        self.platter_image, self.image = folder / "platter.img", folder / "platter" / "image"
        self.outer = self.inner = None
        self.direct = None

    def __enter__(self):
        try:
            for path in (self.mount, self.platter):
                path.mkdir()
            make_file_system(self.platter_image, PLATTER_BYTES)
            self.insert_platter()
            make_file_system(self.image, DISK_BYTES)
            self.insert_disk()
        except Failure:
            self.eject()
            raise
        return self

    def __exit__(self, kind, *_):
        self.eject()
        if kind is None:
            self.platter_image.unlink(missing_ok=True)

    def insert_platter(self):
        self.outer = Loop(self.platter_image, self.platter)

    def insert_disk(self):
        self.inner = Loop(self.image, self.mount)

    def eject(self):
        if self.direct is not None:
            os.close(self.direct)
        for loop in (self.inner, self.outer):
            if loop is not None:
                loop.end()
        self.direct = self.inner = self.outer = None

    # --- cuts ---------------------------------------------------------------------------------------------------------

    def prepare(self):
        """Makes what `cut` overwrites without a sync. Durable, so nothing that matters may be under way yet."""
        block = mmap.mmap(-1, BLOCK)
        block.write(b"old " * (BLOCK // 4))
        self.direct = os.open(self.mount / "overwritten", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
        os.pwrite(self.direct, block, 0)
        os.fsync(self.direct)
        with contextlib.suppress(FileNotFoundError):
            (self.mount / "unsynced").unlink()
        sync_file_system(self.mount)

    def cut(self, cache_lost):
        """Cuts the power: keeps a copy of what the disk holds now, without its write cache if that is `cache_lost`.

        The process that writes must stand still. Before the copy a file is written that nobody syncs, and a block past the
        page cache that nobody flushes: `restore` finds out whether they were lost, as they must.
        """
        # A sync that was under way may still end, and would take with it what is written next.
        await_rest(self.inner)
        (self.mount / "unsynced").write_bytes(b"x" * (64 * BLOCK))
        block = mmap.mmap(-1, BLOCK)
        block.write(b"new " * (BLOCK // 4))
        os.pwrite(self.direct, block, 0)
        copy = self.folder / "copy.img"
        if cache_lost:
            copy_at_rest(self.outer, self.platter_image, copy)
        else:
            copy_at_rest(self.inner, self.image, copy)

    def restore(self, cache_lost):
        """Puts the copy in the place of the disk. Nobody may use the disk any more. Says whether the copy lacks what it must."""
        os.close(self.direct)
        self.direct = None
        self.inner.end()
        copy = self.folder / "copy.img"
        if cache_lost:
            self.outer.end()
            self.outer = None
            copy.replace(self.platter_image)
            self.insert_platter()
        else:
            run("cp", "--sparse=always", copy, self.image)
            copy.unlink()
            sync_file_system(self.platter)
        self.insert_disk()
        unsynced = self.mount / "unsynced"
        lacks = not unsynced.exists() or unsynced.read_bytes() != b"x" * (64 * BLOCK)
        overwritten = (self.mount / "overwritten").read_bytes()[:4]
        if not cache_lost and overwritten != b"new ":
            raise Failure(f"the copy with the disk's write cache has {overwritten!r}: it is not what was sent to the disk")
        return lacks and (not cache_lost or overwritten == b"old ")

    def lie(self):
        """From now on no sync makes the disk flush: it reports as durable what is in its cache."""
        run("mount", "-o", "remount,barrier=0", self.mount)


class Loop:
    """A mounted loop device. Its requests go through the page cache of the file system that has the image."""

    def __init__(self, image, mount):
        self.mount = mount
        self.device = run("losetup", "--find", "--show", "--direct-io=off", image).strip()
        self.mounted = False
        try:
            if (Path("/sys/block") / Path(self.device).name / "loop" / "dio").read_text().strip() != "0":
                raise Failure(f"{self.device} writes past the page cache, though it was asked not to")
            run("mount", "-t", "ext4", self.device, mount)
            self.mounted = True
        except Failure:
            self.end()
            raise

    def end(self):
        for command in (["umount", self.mount], ["losetup", "--detach", self.device])[not self.mounted :]:
            for _ in range(100):
                if subprocess.run(command, capture_output=True).returncode == 0:
                    break
                time.sleep(0.1)

    def written(self):
        """How much was ever written, discarded and flushed, and whether something is under way."""
        fields = [int(word) for word in (Path("/sys/block") / Path(self.device).name / "stat").read_text().split()]
        return (*fields[4:7], *fields[11:14], fields[15]), fields[8] > 0


def make_file_system(image, size):
    with image.open("wb") as file:
        file.truncate(size)
    # All of it now: nothing may be written later that no cut is about.
    lazy = "lazy_itable_init=0,lazy_journal_init=0"
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK), "-N", "1024", "-J", "size=16", "-E", lazy, image)
    with image.open("rb") as file:
        os.fsync(file.fileno())


def await_rest(loop):
    """Waits until nothing is under way for a while."""
    end = time.monotonic() + REST_SECONDS_MAX
    last, since = None, 0.0
    while time.monotonic() < end:
        now, busy = loop.written()
        if busy or now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > REST_SECONDS:
            return
        time.sleep(0.002)
    raise Failure(f"{loop.device} did not come to rest for {REST_SECONDS_MAX} s")


def copy_at_rest(loop, image, copy):
    for _ in range(COPIES_MAX):
        before, busy = loop.written()
        if not busy:
            run("cp", "--sparse=always", image, copy)
            if loop.written() == (before, False):
                return
        time.sleep(0.02)
    raise Failure(f"{loop.device} did not come to rest: {COPIES_MAX} copies were none of one moment")


def sync_file_system(path):
    run("sync", "--file-system", path)


def run(*command):
    command = [str(word) for word in command]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX)
    except OSError as error:
        raise Failure(f"`{' '.join(command)}`: {error}; this needs root and loop devices") from error
    if done.returncode != 0:
        raise Failure(f"`{' '.join(command)}`: {done.stderr.strip()}; this needs root and loop devices")
    return done.stdout
