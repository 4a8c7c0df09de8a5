"""Failing writes and syncs: a library in C that is preloaded into the process under test.

It is compiled when a test needs it. A trigger file says what fails, a line each: the calls
(`write` or `sync`), the errno and how many milliseconds to wait before; without the file, or for
files outside of the folder, everything goes to the C library as ever.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from nemesis.lab import GUARD_S, Fault, Lab, UnavailableError, run
from nemesis.watchdog import REMOVE, write_whole

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *trigger, *folder;

__attribute__((constructor)) static void begin(void) {
    trigger = getenv("NEMESIS_TRIGGER");
    folder = getenv("NEMESIS_FOLDER");
}

static int inside(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    size_t wanted = strlen(folder);
    return !strncmp(path, folder, wanted) && (path[wanted] == '/' || !path[wanted]);
}

/* The errno that a call has to fail with, or 0. Waits first if the trigger says so. */
static int fault(const char *call, int fd) {
    if (!trigger || !folder || access(trigger, R_OK)) return 0;
    int saved = errno, number = 0;
    FILE *file = fopen(trigger, "re");
    if (file && inside(fd)) {
        char name[16];
        int code, wait_ms;
        while (fscanf(file, "%15s %d %d", name, &code, &wait_ms) == 3) {
            if (strcmp(name, call)) continue;
            struct timespec pause = {wait_ms / 1000, (wait_ms % 1000) * 1000000L};
            if (wait_ms) nanosleep(&pause, NULL);
            number = code;
        }
    }
    if (file) fclose(file);
    errno = saved;
    return number;
}

#define WRAP(kind, type, name, declared, given)                              \
    type name declared {                                                     \
        static type(*real) declared;                                         \
        if (!real) real = (type(*) declared)dlsym(RTLD_NEXT, #name);         \
        int number = fault(kind, fd);                                        \
        if (number) { errno = number; return -1; }                           \
        return real given;                                                   \
    }

WRAP("sync", int, fsync, (int fd), (fd))
WRAP("sync", int, fdatasync, (int fd), (fd))
WRAP("write", ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
WRAP("write", ssize_t, pwrite, (int fd, const void *b, size_t n, off_t at), (fd, b, n, at))
WRAP("write", ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t at), (fd, b, n, at))
WRAP("write", ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP("write", ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at))
WRAP("write", int, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
WRAP("write", int, fallocate64, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n))
"""


def compiled(folder: Path) -> Path:
    """The library, compiled into a folder unless it is there.

    Raises:
        UnavailableError: without a C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise UnavailableError("needs a C compiler: install the package gcc")
    name = f"shim-{hashlib.sha256(SOURCE.encode()).hexdigest()[:12]}"
    target = folder / f"{name}.so"
    if not target.exists():
        source = folder / f"{name}.c"
        source.write_text(SOURCE)
        spare = folder / f"{name}.{os.getpid()}.new"
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Werror"]
        run([compiler, *flags, "-o", str(spare), str(source), "-ldl"])
        spare.rename(target)
    return target


class FailingDisk:
    """Writes and syncs of one process to the files below one folder."""

    def __init__(self, lab: Lab, name: str, below: Path) -> None:
        """Raises: UnavailableError: without a C compiler."""
        self._lab = lab
        self.name = name
        self._library = compiled(lab.folder)
        self._trigger = lab.folder / f"{name}.trigger"
        self._below = below.resolve()

    def environment(self) -> Mapping[str, str]:
        """What the process must be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "NEMESIS_TRIGGER": str(self._trigger.resolve()),
            "NEMESIS_FOLDER": str(self._below),
        }

    def fail_sync(self, number: int = errno.EIO, seconds: float = GUARD_S) -> Fault:
        """Every fsync and fdatasync fails."""
        name = f"sync of {self.name} fails with {errno.errorcode[number]}"
        return self._fault(name, f"sync {number} 0\n", seconds)

    def fail_write(self, number: int = errno.ENOSPC, seconds: float = GUARD_S) -> Fault:
        """Every write fails."""
        name = f"write of {self.name} fails with {errno.errorcode[number]}"
        return self._fault(name, f"write {number} 0\n", seconds)

    def slow_sync(self, wait_ms: int, seconds: float = GUARD_S) -> Fault:
        """Every fsync and fdatasync takes that much longer."""
        return self._fault(f"slow sync of {self.name}", f"sync 0 {wait_ms}\n", seconds)

    def _fault(self, name: str, text: str, seconds: float) -> Fault:
        return self._lab.fault(
            name,
            lambda: write_whole(self._trigger, text),
            lambda: self._trigger.unlink(missing_ok=True),
            [[REMOVE, str(self._trigger)]],
            seconds,
        )
