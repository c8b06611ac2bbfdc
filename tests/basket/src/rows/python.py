# Rows of the basket in CPython. Arguments: timed passes (none: compute only), nanoseconds a pass and a row,
# and what the names of rows must contain. Prints lines as basket::Line does.
import sys
from time import perf_counter_ns


def fib():
    def f(n):
        return n if n < 2 else f(n - 1) + f(n - 2)
    return f(15)


def dicts():
    d = {}
    for i in range(4000):
        k = (i * 7919) % 1511
        d[k] = d.get(k, 0) + i
    return sum(k * v for k, v in d.items()), len(d)


def floats():
    x, y, s = 0.1, 0.2, 0.0
    for i in range(1, 4000):
        x, y = x * 0.75 + y / i, y * 0.5 - x * 0.125 + 0.01
        s += (x * x + y * y) ** 0.5
    return s


def sorting():
    x, values = 1, []
    for _ in range(2500):
        x = (x * 1103515245 + 12345) & 0x7fffffff
        values.append(x)
    values.sort(key=lambda v: v ^ 0x5555)
    return values[::97]


class Point:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x = x
        self.y = y

    def plus(self, other):
        return Point(self.x + other.x, self.y ^ other.y)


def objects():
    p, step = Point(1, 2), Point(3, 5)
    for _ in range(2000):
        p = p.plus(step)
        step.y += 1
    return p.x, p.y


def strings():
    words = ("the quick brown fox jumps over the lazy dog " * 10).split()
    text = "-".join(w.upper() for w in words).replace("O", "00")
    return len(text), text.count("0"), text.find("LAZY"), "%s:%d" % (text[40:60], len(words))


ROWS = [("python_fib", fib), ("python_dict", dicts), ("python_float", floats),
        ("python_sort", sorting), ("python_objects", objects), ("python_strings", strings)]


def fnv(text):
    s = 0xcbf29ce484222325
    for b in text.encode():
        s = (s ^ b) * 0x100000001b3 & 0xffffffffffffffff
    return s


def once(row, rounds):
    begin = perf_counter_ns()
    for _ in range(rounds):
        row()
    return perf_counter_ns() - begin


def timing(row, passes, pass_ns, row_ns):
    begin, rounds = perf_counter_ns(), 1
    while (took := once(row, rounds)) * 2 < pass_ns:
        rounds *= min(max(pass_ns // max(took, 1), 2), 16)
    times = [took]
    while len(times) < passes and perf_counter_ns() - begin < row_ns:
        times.append(once(row, rounds))
    times.sort()
    return " %.3f %.3f" % (times[0] / rounds, times[len(times) // 2] / rounds)


passes, pass_ns, row_ns = map(int, sys.argv[1:4])
for name, row in ROWS:
    if sys.argv[4] in name:
        total = fnv(repr(row()))
        times = timing(row, passes, pass_ns, row_ns) if passes else ""
        again = fnv(repr(row()))
        if again != total:
            print("BASKET-WRONG %s %016x and then %016x" % (name, total, again))
        print("BASKET %s %016x%s" % (name, total, times), flush=True)
