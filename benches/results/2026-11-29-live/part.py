#!/usr/bin/env python3
"""part.py TRACE.csv.zst OUT.csv SPEED FROM TO [FROM TO]...: the reads of some stretches of a
trace (seconds), one after the other, with times divided by SPEED."""
import subprocess
import sys

trace, out, speed = sys.argv[1], sys.argv[2], float(sys.argv[3])
ends = [float(word) for word in sys.argv[4:]]
parts = list(zip(ends[::2], ends[1::2]))
lines = subprocess.run(["zstdcat", trace], capture_output=True, text=True, check=True).stdout
with open(out, "w") as file:
    file.write("time_us,op,offset_bytes,size_bytes\n")
    before = 0.0
    for start, end in parts:
        for line in lines.splitlines()[1:]:
            time, op, offset, size = line.split(",")[:4]
            at = int(time) / 1e6
            if op == "R" and start <= at < end:
                us = round((before + at - start) / speed * 1e6)
                file.write(f"{us},R,{offset},{size}\n")
        before += end - start
