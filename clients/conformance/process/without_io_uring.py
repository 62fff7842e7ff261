"""Runs a command under a seccomp filter that forbids io_uring, as container runtimes do by default.

    without_io_uring.py COMMAND [ARGUMENT...]
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
IO_URING_SETUP = 425  # the same number on all architectures
EPERM = 1


def instruction(code, jump_true, jump_false, constant):
    return struct.pack("HBBI", code, jump_true, jump_false, constant)


def main():
    program = b"".join(
        [
            instruction(0x20, 0, 0, 0),  # load the number of the system call
            instruction(0x15, 0, 1, IO_URING_SETUP),  # equal? go on : skip one
            instruction(0x06, 0, 0, 0x00050000 | EPERM),  # return an error
            instruction(0x06, 0, 0, 0x7FFF0000),  # allow
        ]
    )
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        sys.exit(f"cannot install the filter: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


main()
