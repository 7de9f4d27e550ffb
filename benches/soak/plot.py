"""A line chart of several panels over one time axis as a PNG, with nothing but the standard library."""

import struct
import zlib

# The classic 5x7 font: a byte a column, the lowest bit on top; from the space to "z".
FONT = bytes.fromhex(
    "0000000000 00005f0000 0007000700 147f147f14 242a7f2a12 2313086462 3649562050 0008070300 001c224100 0041221c00"
    "2a1c7f1c2a 08083e0808 0080703000 0808080808 0000606000 2010080402 3e5149453e 00427f4000 7249494946 2141494d33"
    "1814127f10 2745454539 3c4a494931 4121110907 3649494936 464949291e 0000140000 0040340000 0008142241 1414141414"
    "0041221408 0201590906 3e415d594e 7c1211127c 7f49494936 3e41414122 7f4141413e 7f49494941 7f09090901 3e41415173"
    "7f0808087f 00417f4100 2040413f01 7f08142241 7f40404040 7f021c027f 7f0408107f 3e4141413e 7f09090906 3e4151215e"
    "7f09192946 2649494932 03017f0103 3f4040403f 1f2040201f 3f4038403f 6314081463 0304780403 6159494d43 007f414141"
    "0204081020 004141417f 0402010204 4040404040 0003070800 2054547840 7f28444438 3844444428 384444287f 3854545418"
    "00087e0902 18a4a49c78 7f08040478 00447d4000 2040403d00 7f10284400 00417f4000 7c04780478 7c08040478 3844444438"
    "fc18242418 18242418fc 7c08040408 4854545424 04043f4424 3c4040207c 1c2040201c 3c4030403c 4428102844 4c9090907c"
    "4464544c44".replace(" ", "")
)
WHITE, BLACK, GREY, LIGHT = (255, 255, 255), (40, 40, 40), (120, 120, 120), (225, 225, 225)
COLOURS = [(31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189)]
WIDTH, PANEL, MARGIN, LEFT, RIGHT, TEXT = 1280, 210, 44, 110, 24, 2


class Canvas:
    def __init__(self, width, height):
        self.width, self.height = width, height
        self.rows = [bytearray(bytes(WHITE) * width) for _ in range(height)]

    def dot(self, x, y, colour):
        if 0 <= x < self.width and 0 <= y < self.height:
            self.rows[y][3 * x:3 * x + 3] = bytes(colour)

    def line(self, x0, y0, x1, y1, colour, thick=1):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(steps + 1):
            x, y = x0 + round((x1 - x0) * step / steps), y0 + round((y1 - y0) * step / steps)
            for part in range(thick * thick):
                self.dot(x + part % thick, y + part // thick, colour)

    def text(self, x, y, text, colour=BLACK, scale=TEXT):
        for character in text:
            index = 5 * (ord(character) - 32)
            for column, bits in enumerate(FONT[index:index + 5]):
                for row in range(8):
                    if bits >> row & 1:
                        for part in range(scale * scale):
                            self.dot(x + scale * column + part % scale, y + scale * row + part // scale, colour)
            x += 6 * scale

    def write(self, path):
        def chunk(kind, data):
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        raw = b"".join(b"\0" + row for row in self.rows)
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        with open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head))
            file.write(chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b""))


def round_up(value):
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below `value`."""
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value > 0:
        power /= 10
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * 0.9999)


def draw(path, title, minutes, panels, marks=(), dotted=""):
    """`minutes`: the time of every sample. `panels`: (title, [(name, values)]), a value of None is left out.
    `marks`: the minutes at which `dotted` happened."""
    canvas = Canvas(WIDTH, MARGIN + len(panels) * (PANEL + MARGIN) + MARGIN)
    canvas.text(LEFT, 14, title, scale=2)
    span, plot_width = max(minutes[-1], 0.01), WIDTH - LEFT - RIGHT
    across = lambda minute: LEFT + round(minute / span * plot_width)
    for number, (name, lines) in enumerate(panels):
        top = MARGIN + 26 + number * (PANEL + MARGIN)
        bottom = top + PANEL - 26
        highest = max((value for _, values in lines for value in values if value is not None), default=1)
        step = round_up(max(highest, 1e-6) / 4)
        most = step * 4 if highest <= step * 4 else step * 5
        down = lambda value: bottom - round(value / most * (bottom - top))
        for tick in range(round(most / step) + 1):
            y, label = down(tick * step), f"{tick * step:g}"
            canvas.line(LEFT, y, WIDTH - RIGHT, y, LIGHT)
            canvas.text(LEFT - 8 - 12 * len(label), y - 7, label, GREY)
        every = round_up(span / 10)
        for tick in range(int(span / every) + 1):
            x = across(tick * every)
            canvas.line(x, bottom, x, bottom + 4, GREY)
            if number == len(panels) - 1:
                canvas.text(x - 6, bottom + 10, f"{tick * every:g}", GREY)
        for minute in marks:
            for y in range(top, bottom, 6):
                canvas.line(across(minute), y, across(minute), y + 1, GREY)
        canvas.line(LEFT, bottom, WIDTH - RIGHT, bottom, GREY)
        canvas.line(LEFT, top, LEFT, bottom, GREY)
        canvas.text(LEFT, top - 20, name)
        x = LEFT + 12 * len(name) + 30
        for colour, (legend, values) in zip(COLOURS, lines):
            canvas.line(x, top - 13, x + 18, top - 13, colour, 3)
            canvas.text(x + 26, top - 20, legend, colour)
            x += 26 + 12 * len(legend) + 30
            last = None
            for minute, value in zip(minutes, values):
                point = None if value is None else (across(minute), down(value))
                if last and point:
                    canvas.line(*last, *point, colour, 2)
                last = point
    canvas.text(LEFT, canvas.height - 24, f"minutes; dotted: {dotted}", GREY)
    canvas.write(path)
