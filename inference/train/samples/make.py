"""Writes the images of this folder with Pillow: python3 make.py"""

import struct
import zlib

from PIL import Image

GREY = [0, 255, 51, 102, 153, 204, 17, 34, 68, 85, 119, 136]

grey = Image.new("L", (4, 3))
grey.putdata(GREY)
grey.save("grey.png")
grey.save("grey.pgm")
deep = Image.new("I;16", (4, 3))
deep.putdata([value * 257 for value in GREY])
deep.save("deep.png")
colour = Image.new("RGB", (2, 2))
colour.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
colour.save("colour.png")
colour.convert("RGBA").save("opaque.png")
colour.quantize(4).save("palette.png")
Image.new("RGBA", (2, 2), (9, 9, 9, 128)).save("clear.png")

# A ramp from left to right, and the same lying on its side with a note that says so.
ramp = Image.new("L", (16, 8))
ramp.putdata([column * 16 for _ in range(8) for column in range(16)])
ramp.save("ramp.jpg", quality=95)
ramp.save("progressive.jpg", quality=95, progressive=True)
exif = Image.Exif()
exif[0x0112] = 6
ramp.transpose(Image.Transpose.ROTATE_90).save("turned.jpg", quality=95, exif=exif)


def chunk(kind, body):
    whole = kind + body
    return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))


# A header that promises 4 * 10^18 pixels.
head = struct.pack(">IIBBBBB", 0x7FFFFFFF, 0x7FFFFFFF, 8, 0, 0, 0, 0)
with open("vast.png", "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head))
    file.write(chunk(b"IDAT", zlib.compress(bytes(64), 9)) + chunk(b"IEND", b""))
