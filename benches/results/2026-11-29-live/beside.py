#!/usr/bin/env python3
"""beside.py: cold.csv, a walk through 3,000 fragments of 1 MiB in an order without steps, every
25 ms; hot.csv, reads of 4 KiB in any order of a volume of 128 MiB, for the closed loop."""
import random

random.seed(1)
with open("cold.csv", "w") as file:
    file.write("time_us,op,offset_bytes,size_bytes\n")
    for n in range(12000):
        file.write(f"{n * 25000},R,{n * 1789 % 3001 << 20},65536\n")
with open("hot.csv", "w") as file:
    file.write("time_us,op,offset_bytes,size_bytes\n")
    for n in range(60000):
        file.write(f"{n},R,{random.randrange(32768) << 12},4096\n")
