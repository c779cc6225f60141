"""Runs one command and writes what it cost to the file descriptor that is named first.

A process of its own, because the peak that the kernel accounts to a child begins with that of the process which started
it: this one is small.
"""

import os
import sys
import time

costs, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(costs, False)
begun = time.monotonic()
child = os.posix_spawnp(command[0], command, os.environ)
_, status, used = os.wait4(child, 0)
wall = time.monotonic() - begun
os.write(costs, f"{used.ru_utime} {used.ru_stime} {wall} {used.ru_maxrss}".encode())
sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
