"""What a node says on its cable, in the clear.

`cable.py record INTERFACE FILE` writes down every packet until it is told to end, and then says
how many there were and how many the kernel had no room for. `cable.py read FILE KEYLOG WANTED`
opens what the node sent: QUIC with the secrets that a debug build writes to SSLKEYLOGFILE
(RFC 9001, sections 5 and 6), TCP and other datagrams as they are. WANTED is JSON: names, and for
each the bytes in hexadecimal. Prints which were seen, how many bytes streams carried, and how many
datagrams could not be opened.
"""

import collections
import json
import signal
import socket
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

EVERY_PROTOCOL = 3
SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 263, 6, 33
# More than a test of some seconds sends.
BUFFER = 64 << 20
OUTGOING = 4
RECORD = struct.Struct("!BI")
# RFC 9001, section 5.2.
INITIAL_SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
# What quinn gives its connections.
CONNECTION_ID = 8
# What fits a packet of Ethernet. Larger datagrams, and some smaller ones, are several of one size
# that the kernel has not yet taken apart.
WHOLE = 1472
BETWEEN = b"<another packet>" * 4
SIZES = [*range(1200, WHOLE + 1), *range(30, 1200)]


def record(interface, path):
    cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    cable.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    cable.bind((interface, 0))
    cable.settimeout(0.2)
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    print("recording", flush=True)
    count = 0
    with open(path, "wb") as file:
        while True:
            if ended:
                # What was said before the end is already here.
                cable.setblocking(False)
            try:
                packet, address = cable.recvfrom(1 << 17)
            except BlockingIOError:
                break
            except TimeoutError:
                continue
            file.write(RECORD.pack(address[2] == OUTGOING, len(packet)) + packet)
            count += 1
    _, dropped = struct.unpack("II", cable.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps({"packets": count, "dropped": dropped}), flush=True)


def recorded(path):
    with open(path, "rb") as file:
        while head := file.read(RECORD.size):
            outgoing, length = RECORD.unpack(head)
            yield bool(outgoing), file.read(length)


def segments(packet):
    """Protocol, who to whom, and what a frame of Ethernet carries; none of ARP and the like."""
    kind, body = struct.unpack("!H", packet[12:14])[0], packet[14:]
    if kind == 0x0800:
        head, length = (body[0] & 15) * 4, struct.unpack("!H", body[2:4])[0]
        # A packet that the kernel has not taken apart may say no length.
        protocol, ends, body = body[9], body[12:20], body[head : length or None]
    elif kind == 0x86DD:
        length = struct.unpack("!H", body[4:6])[0]
        protocol, ends, body = body[6], body[8:40], body[40 : 40 + length if length else None]
    else:
        return None
    if protocol == socket.IPPROTO_UDP:
        return "udp", ends + body[:4], body[8:]
    if protocol == socket.IPPROTO_TCP:
        return "tcp", ends + body[:4], body[4:8] + body[(body[12] >> 4) * 4 :]
    return "other", ends, body


def expand(algorithm, secret, label, length):
    """HKDF-Expand-Label (RFC 8446, section 7.1) with nothing for a context."""
    label = b"tls13 " + label
    info = struct.pack("!HB", length, len(label)) + label + b"\0"
    return HKDFExpand(algorithm, length, info).derive(secret)


class Key:
    """One secret: the way into packets of one side, of one cipher, over changes of the key."""

    def __init__(self, secret, cipher):
        long = cipher == "aes256"
        self.algorithm = hashes.SHA384() if long else hashes.SHA256()
        self.cipher, self.size = cipher, 16 if cipher == "aes128" else 32
        self.guard = expand(self.algorithm, secret, b"quic hp", self.size)
        self.phases = [self.phase(secret)]
        self.largest = -1
        self.opened = 0

    def phase(self, secret):
        aead = ChaCha20Poly1305 if self.cipher == "chacha20" else AESGCM
        key = expand(self.algorithm, secret, b"quic key", self.size)
        return secret, aead(key), expand(self.algorithm, secret, b"quic iv", 12)

    def mask(self, sample):
        if self.cipher == "chacha20":
            cipher = Cipher(algorithms.ChaCha20(self.guard, sample), None)
            return cipher.encryptor().update(bytes(5))
        return Cipher(algorithms.AES(self.guard), modes.ECB()).encryptor().update(sample)[:5]

    def open(self, packet, at):
        """What is in a packet whose number is at a place; none where it is not of this key."""
        mask = self.mask(packet[at + 4 : at + 20])
        long = packet[0] & 0x80
        first = packet[0] ^ (mask[0] & (0x0F if long else 0x1F))
        length = (first & 3) + 1
        number = bytes(a ^ b for a, b in zip(packet[at : at + length], mask[1:]))
        head = bytes([first]) + packet[1:at] + number
        number = self.whole(int.from_bytes(number), length * 8)
        if not long and len(self.phases) < 64:
            self.phases.append(self.phase(expand_next(self, self.phases[-1][0])))
        for place, (_, aead, vector) in reversed(list(enumerate(self.phases))):
            if not long and place & 1 != (first >> 2) & 1:
                continue
            nonce = bytes(a ^ b for a, b in zip(vector, number.to_bytes(12)))
            try:
                plain = aead.decrypt(nonce, packet[at + length :], head)
            except InvalidTag:
                continue
            self.largest = max(self.largest, number)
            self.opened += 1
            # One key ahead is enough.
            del self.phases[place + 2 :]
            return plain
        if not long:
            self.phases.pop()
        return None

    def whole(self, number, bits):
        """RFC 9000, appendix A.3."""
        expected, window = self.largest + 1, 1 << bits
        candidate = (expected & ~(window - 1)) | number
        if candidate <= expected - window // 2 and candidate < (1 << 62) - window:
            return candidate + window
        if candidate > expected + window // 2 and candidate >= window:
            return candidate - window
        return candidate


def expand_next(key, secret):
    """RFC 9001, section 6.1."""
    return expand(key.algorithm, secret, b"quic ku", key.algorithm.digest_size)


def initial_keys(connection):
    """RFC 9001, section 5.2: everybody on the path has these."""
    whole = HKDF.extract(hashes.SHA256(), INITIAL_SALT, connection)
    return [Key(expand(hashes.SHA256(), whole, side, 32), "aes128") for side in (b"client in", b"server in")]


def logged_keys(path):
    handshake, traffic = [], []
    for line in open(path, encoding="ascii"):
        label, _, secret = line.split()
        secret = bytes.fromhex(secret)
        ciphers = ["aes256"] if len(secret) == 48 else ["aes128", "chacha20"]
        into = {"HANDSHAKE": handshake, "TRAFFIC": traffic}.get(label.split("_")[1])
        if into is not None:
            into.extend(Key(secret, cipher) for cipher in ciphers)
    return handshake, traffic


def varint(data, at):
    length = 1 << (data[at] >> 6)
    value = int.from_bytes(data[at : at + length]) & ((1 << (8 * length - 2)) - 1)
    return value, at + length


class Reader:
    """All that a node sent, opened."""

    def __init__(self, handshake, traffic):
        self.handshake, self.traffic = handshake, traffic
        self.initial = {}
        self.by_path = {}
        self.pieces = collections.defaultdict(dict)
        self.plain = []
        self.unread = []
        self.datagrams = self.gaps = 0
        self.size = SIZES[0]

    def begun(self, data):
        """Notes the name of a connection, which the first keys are made of."""
        if len(data) > 6 and data[0] & 0xF0 == 0xC0 and data[1:5] == b"\0\0\0\1":
            name = data[6 : 6 + data[5]]
            if name not in self.initial:
                self.initial[name] = initial_keys(name)

    def udp(self, path, data):
        self.datagrams += 1
        if b"_p2p" in data or path[-2:] == struct.pack("!H", 5353):
            self.plain.append(data)
            return
        if not self.quic(path, data):
            self.unread.append((path.hex(), len(data), data[:24].hex()))

    def quic(self, path, data):
        at = 0
        while at < len(data) and data[at] & 0x80:
            length = self.long(path, data[at:])
            if not length:
                return False
            at += length
        rest = data[at:]
        if not rest.strip(b"\0"):
            return True
        if len(rest) <= WHOLE and self.short(path, rest):
            return True
        for size in [self.size, *SIZES]:
            if size < len(rest) and self.short(path, rest[:size]):
                self.size = size
                later = (rest[at : at + size] for at in range(size, len(rest), size))
                return all([self.short(path, one) for one in later])
        return False

    def long(self, path, data):
        at = 6 + data[5]
        at += 1 + data[at]
        kind = (data[0] >> 4) & 3
        if kind == 0:
            token, at = varint(data, at)
            at += token
        length, at = varint(data, at)
        packet = data[: at + length]
        keys = [key for pair in self.initial.values() for key in pair] if kind == 0 else self.handshake
        for key in keys:
            plain = key.open(packet, at)
            if plain is not None:
                self.keep(path + bytes([kind]), plain)
                return at + length
        return None

    def short(self, path, packet):
        if len(packet) < 1 + CONNECTION_ID + 20:
            return False
        at = 1 + CONNECTION_ID
        # A path has few connections, one after the other, and each uses one secret.
        known = self.by_path.setdefault(path, [])
        for key in known + [key for key in self.traffic if key not in known]:
            plain = key.open(packet, at)
            if plain is not None:
                if key not in known:
                    known.insert(0, key)
                self.keep(id(key), plain)
                return True
        return False

    def keep(self, connection, plain):
        """Sorts the pieces of streams (RFC 9000, section 19); the whole packet is kept too."""
        self.plain.append(plain)
        at = 0
        while at < len(plain):
            kind, at = varint(plain, at)
            if kind in (2, 3):
                for _ in range(2):
                    _, at = varint(plain, at)
                count, at = varint(plain, at)
                for _ in range(1 + 2 * count + (3 if kind == 3 else 0)):
                    _, at = varint(plain, at)
            elif kind == 6 or 8 <= kind <= 15:
                stream, offset, length = "handshake", 0, None
                if kind != 6:
                    stream, at = varint(plain, at)
                if kind == 6 or kind & 4:
                    offset, at = varint(plain, at)
                if kind == 6 or kind & 2:
                    length, at = varint(plain, at)
                end = len(plain) if length is None else at + length
                pieces = self.pieces[connection, stream]
                # What is said again may be cut elsewhere.
                pieces[offset] = max(pieces.get(offset, b""), plain[at:end], key=len)
                at = end
            elif kind in FIELDS:
                for _ in range(FIELDS[kind]):
                    _, at = varint(plain, at)
            elif kind == 7:
                length, at = varint(plain, at)
                at += length
            elif kind == 0x18:
                _, at = varint(plain, at)
                _, at = varint(plain, at)
                at += 1 + plain[at] + 16
            elif kind in (0x1A, 0x1B):
                at += 8
            elif kind in (0x1C, 0x1D):
                for _ in range(2 if kind == 0x1C else 1):
                    _, at = varint(plain, at)
                length, at = varint(plain, at)
                at += length
            elif kind in (0x30, 0x31):
                # A datagram ends its packet, or says how long it is.
                length, at = varint(plain, at) if kind == 0x31 else (len(plain) - at, at)
                at += length
            else:
                raise ValueError(f"frame {kind:#x} is not known")

    def streams(self):
        for pieces in self.pieces.values():
            whole, end = b"", 0
            for offset in sorted(pieces):
                piece = pieces[offset]
                if offset > end:
                    self.gaps += 1
                    whole, end = whole + b"\0", offset
                fresh = piece[max(0, end - offset) :]
                whole, end = whole + fresh, end + len(fresh)
            yield whole


# How many numbers follow a frame's kind.
FIELDS = {
    0: 0, 1: 0, 4: 3, 5: 2, 0x10: 1, 0x11: 2, 0x12: 1, 0x13: 1, 0x14: 1, 0x15: 2, 0x16: 1,
    0x17: 1, 0x19: 1, 0x1E: 0, 0x1F: 0, 0xAF: 4,
}  # fmt: skip


def read(path, keylog, wanted):
    reader, tcp = Reader(*logged_keys(keylog)), collections.defaultdict(dict)
    packets = list(recorded(path))
    for _, packet in packets:
        found = segments(packet)
        if found and found[0] == "udp":
            reader.begun(found[2])
    for outgoing, packet in packets:
        found = segments(packet)
        if not outgoing or not found:
            continue
        protocol, ends, data = found
        if protocol == "udp":
            reader.udp(ends, data)
        elif protocol == "tcp":
            tcp[ends][data[:4]] = data[4:]
        else:
            reader.plain.append(data)
    streams = list(reader.streams())
    calls = [b"".join(data for _, data in sorted(flow.items())) for flow in tcp.values()]
    wanted = {name: bytes.fromhex(value) for name, value in json.load(open(wanted)).items()}
    # What is between two packets is in nothing that is searched.
    said = [*streams, *calls, BETWEEN.join(reader.plain)]
    seen = [name for name, value in wanted.items() if any(value in one for one in said)]
    print(
        json.dumps(
            {
                "seen": seen,
                "stream_bytes": sum(map(len, streams)),
                "tcp_bytes": sum(map(len, calls)),
                "datagrams": reader.datagrams,
                "gaps": reader.gaps,
                "unread": len(reader.unread),
                "first_unread": reader.unread[:5],
            }
        )
    )


if __name__ == "__main__":
    {"record": record, "read": read}[sys.argv[1]](*sys.argv[2:])
