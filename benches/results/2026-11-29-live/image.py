#!/usr/bin/env python3
"""image.py TRACE.csv IMAGE: a sparse image with bytes in each MiB that the trace reads."""
import os
import sys

touched = set()
with open(sys.argv[1]) as file:
    for line in list(file)[1:]:
        _, _, offset, size = line.split(",")
        first, last = int(offset) >> 20, (int(offset) + int(size) - 1) >> 20
        touched.update(range(first, last + 1))
with open(sys.argv[2], "wb") as image:
    for at in sorted(touched):
        image.seek(at << 20)
        image.write(os.urandom(1 << 20))
    image.truncate((max(touched) + 1) << 20)
print(len(touched), "MiB touched of", max(touched) + 1)
