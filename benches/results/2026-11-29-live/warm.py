#!/usr/bin/env python3
"""warm.py TRACE.csv OUT.csv: one block of each MiB that the trace reads, so that the block maps
are in memory."""
import sys

touched = set()
with open(sys.argv[1]) as file:
    for line in list(file)[1:]:
        _, _, offset, size = line.split(",")
        touched.update(range(int(offset) >> 20, (int(offset) + int(size) - 1 >> 20) + 1))
with open(sys.argv[2], "w") as file:
    file.write("time_us,op,offset_bytes,size_bytes\n")
    for at in sorted(touched):
        file.write(f"0,R,{at << 20},4096\n")
