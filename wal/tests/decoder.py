#!/usr/bin/env python3
"""Reads a lane of the log, knowing nothing but docs/WAL_FORMAT.md. Standard library only; slow on purpose: plain.

    decoder.py DIRECTORY LANE [KEY-ID-HEX KEY-HEX]

Prints one line per record: `record LSN KIND TARGET PAYLOAD-HEX`, then `verdict VERDICT LAST-GROUP LAST-LSN`, or
`refused WHY`. The tests compare this with what the log itself finds.
"""

import pathlib
import struct
import sys

BLOCK, SECTOR = 4096, 512


def crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


# --- AES-256-GCM (FIPS 197, SP 800-38D) -------------------------------------------------------------------------------


def xtime(value):
    return ((value << 1) ^ 0x1B) & 0xFF if value & 0x80 else value << 1


def make_sbox():
    sbox, p, q = [0] * 256, 1, 1
    while True:
        p = p ^ xtime(p)
        q ^= (q << 1) & 0xFF
        q ^= (q << 2) & 0xFF
        q ^= (q << 4) & 0xFF
        if q & 0x80:
            q ^= 0x09
        rotations = q
        for shift in range(1, 5):
            rotations ^= ((q << shift) | (q >> (8 - shift))) & 0xFF
        sbox[p] = rotations ^ 0x63
        if p == 1:
            break
    sbox[0] = 0x63
    return sbox


SBOX = make_sbox()
DOUBLE = [xtime(value) for value in range(256)]


class Aes256:
    def __init__(self, key):
        words = [list(key[at : at + 4]) for at in range(0, 32, 4)]
        rcon = 1
        for index in range(8, 60):
            word = list(words[-1])
            if index % 8 == 0:
                word = [SBOX[byte] for byte in word[1:] + word[:1]]
                word[0] ^= rcon
                rcon = xtime(rcon)
            elif index % 8 == 4:
                word = [SBOX[byte] for byte in word]
            words.append([a ^ b for a, b in zip(words[-8], word)])
        self.keys = [sum(words[at : at + 4], []) for at in range(0, 60, 4)]

    def encrypt(self, block):
        state = [a ^ b for a, b in zip(block, self.keys[0])]
        for number in range(1, 15):
            state = [SBOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
            if number < 14:
                mixed = []
                for column in range(0, 16, 4):
                    a, b, c, d = state[column : column + 4]
                    everything = a ^ b ^ c ^ d
                    mixed += [
                        a ^ everything ^ DOUBLE[a ^ b],
                        b ^ everything ^ DOUBLE[b ^ c],
                        c ^ everything ^ DOUBLE[c ^ d],
                        d ^ everything ^ DOUBLE[d ^ a],
                    ]
                state = mixed
            state = [a ^ b for a, b in zip(state, self.keys[number])]
        return bytes(state)


def ghash_table(key):
    """The products of the key with every value of every byte position would be large; one table per nibble is not."""
    products, value = [], key
    for _ in range(128):
        products.append(value)
        value = (value >> 1) ^ ((0xE1 << 120) if value & 1 else 0)
    tables = []
    for position in range(32):
        row = []
        for nibble in range(16):
            product = 0
            for bit in range(4):
                if nibble >> (3 - bit) & 1:
                    product ^= products[position * 4 + bit]
            row.append(product)
        tables.append(row)
    return tables


def ghash(tables, data):
    value = 0
    for at in range(0, len(data), 16):
        value ^= int.from_bytes(data[at : at + 16].ljust(16, b"\0"), "big")
        product = 0
        for position in range(32):
            product ^= tables[position][value >> (124 - 4 * position) & 15]
        value = product
    return value


def pad16(data):
    return data + b"\0" * (-len(data) % 16)


class Gcm:
    def __init__(self, key):
        self.aes = Aes256(key)
        self.tables = ghash_table(int.from_bytes(self.aes.encrypt(bytes(16)), "big"))

    def open(self, nonce, aad, ciphertext, tag):
        lengths = struct.pack(">QQ", len(aad) * 8, len(ciphertext) * 8)
        hashed = ghash(self.tables, pad16(aad) + pad16(ciphertext) + lengths)
        mask = int.from_bytes(self.aes.encrypt(nonce + b"\0\0\0\1"), "big")
        if (hashed ^ mask).to_bytes(16, "big") != tag:
            return None
        plain = bytearray()
        for number, at in enumerate(range(0, len(ciphertext), 16)):
            stream = self.aes.encrypt(nonce + struct.pack(">I", number + 2))
            plain += bytes(a ^ b for a, b in zip(ciphertext[at : at + 16], stream))
        return bytes(plain)


# --- the format -------------------------------------------------------------------------------------------------------


class Refused(Exception):
    pass


def read_manifest(data, lane):
    best = None
    for index in range(2):
        slot = data[index * 65536 : (index + 1) * 65536]
        if len(slot) < 65536 or slot[:4] != b"PWM1" or slot[4] != 1:
            continue
        if crc32c(slot[:65532]) != struct.unpack_from("<I", slot, 65532)[0]:
            continue
        generation, of_lane, epoch = struct.unpack_from("<QII", slot, 8)
        if generation % 2 != index or of_lane != lane:
            continue
        base_group, base_lsn = struct.unpack_from("<QQ", slot, 24)
        durable_group, durable_lsn, count = struct.unpack_from("<QQI", slot, 56)
        listed = [struct.unpack_from("<Q16s", slot, 80 + 24 * at) for at in range(count)]
        manifest = (generation, base_group, base_lsn, slot[40:56], durable_group, durable_lsn, listed)
        best = max(best, manifest) if best else manifest
    if best is None:
        raise Refused("manifest")
    return best


class Segment:
    def __init__(self, directory, lane, number, incarnation, key):
        path = directory / f"lane-{lane:08x}-{number:016x}.segment"
        if not path.exists():
            raise Refused("missing")
        self.data = path.read_bytes()
        for block in (self.data[:BLOCK], self.data[BLOCK : 2 * BLOCK]):
            if block[:4] == b"PWS1" and block[4] == 1 and crc32c(block[:4092]) == struct.unpack_from("<I", block, 4092)[0]:
                break
        else:
            raise Refused("header")
        of_lane, self.epoch, self.number = struct.unpack_from("<IIQ", block, 8)
        self.blocks = struct.unpack_from("<I", block, 40)[0]
        if (of_lane, self.number, block[24:40]) != (lane, number, incarnation):
            raise Refused("replaced")
        if len(self.data) != self.blocks * BLOCK:
            raise Refused("length")
        data_key = block[84:116]
        if block[5] == 1:
            if key is None or key[0] != block[56:72]:
                raise Refused("key")
            identity = struct.pack("<IIQ", of_lane, self.epoch, self.number) + block[24:40]
            data_key = Gcm(key[1]).open(block[72:84], identity, data_key, block[116:132])
            if data_key is None:
                raise Refused("key")
        self.cipher = Gcm(data_key)

    def header(self, lane, block):
        """The group header at a block, if it is one and in its place."""
        raw = self.data[block * BLOCK : block * BLOCK + 128]
        if len(raw) < 128 or raw[:4] != b"PWG1" or raw[4] != 1 or raw[5] not in (1, 2, 3):
            return None
        if crc32c(raw[:124]) != struct.unpack_from("<I", raw, 124)[0]:
            return None
        names = "flags lane epoch group segment block blocks payload records first_lsn durable previous_tag"
        header = dict(zip(names.split(), struct.unpack_from("<HIIQQIIIIQQ16s", raw, 6)))
        in_place = (
            header["lane"] == lane
            and header["segment"] == self.number
            and header["block"] == block
            and block + header["blocks"] <= self.blocks
            and bool(header["flags"] & 1) == (block == 2)
        )
        return header if in_place else None

    def group(self, header):
        """The records and the tag of a group, or None."""
        start, length = header["block"] * BLOCK, header["blocks"] * BLOCK
        raw = self.data[start : start + length]
        if crc32c(raw[:-4]) != struct.unpack_from("<I", raw, length - 4)[0]:
            return None
        nonce = struct.pack("<IQ", header["epoch"], header["group"])
        tag = raw[-20:-4]
        body = self.cipher.open(nonce, raw[:128], raw[128:-20], tag)
        if body is None:
            return None
        records, at = [], 0
        for number in range(header["records"]):
            length, kind, reserved, target = struct.unpack_from("<IB3sI", body, at)
            payload = body[at + 12 : at + 12 + length]
            if kind not in (1, 2, 3, 4) or reserved != b"\0\0\0" or len(payload) != length:
                return None
            records.append((header["first_lsn"] + number, kind, target, payload))
            at += 12 + length
        return (records, tag) if at == header["payload"] and is_zero(body[at:]) else None


def is_zero(data):
    return not any(data)


def read_cut(payload, own_epoch):
    """The last group and LSN, and the stretches given up: (first group, last group, first LSN, last LSN, epoch)."""
    stretches = [struct.unpack_from("<QQQQI", payload, at) for at in range(16, len(payload), 40)]
    return (*struct.unpack_from("<QQ", payload), [(*entry[:4], entry[4] or own_epoch) for entry in stretches])


def find(lane, segments, index, block, wanted):
    for at in range(index, len(segments)):
        for number in range(block if at == index else 2, segments[at].blocks):
            header = segments[at].header(lane, number)
            if header and (header["epoch"], header["group"], header["first_lsn"]) == wanted:
                return at, header
    return None


def walk(lane, manifest, segments, emit):
    _, group, lsn, tag, witness, durable_lsn, _ = manifest
    starts = []
    for index, segment in enumerate(segments):
        header = segment.header(lane, 2)
        if header and header["flags"] & 4 and header["epoch"] == segment.epoch:
            opened = segment.group(header)
            if opened and opened[0] and opened[0][0][1] == 4:
                starts.append((index, header, read_cut(opened[0][0][3], header["epoch"])))
    given_up = [stretch for _, _, (_, _, stretches) in starts for stretch in stretches]
    index, block = 0, 2
    epoch = segments[0].epoch if segments else 0
    while True:
        begins_here = [stretch for stretch in given_up if (stretch[0], stretch[2]) == (group + 1, lsn + 1)]
        if begins_here:
            stretch = begins_here[0]
            given_up.remove(stretch)
            _, group, _, lsn, in_epoch = stretch
            behind = find(lane, segments, index, block, (in_epoch, group + 1, lsn + 1))
            if behind:
                index, header = behind
                block, epoch, tag = header["block"], header["epoch"], header["previous_tag"]
            continue
        ahead = [start for start in starts if start[0] >= index and start[1]["epoch"] > epoch]
        if ahead:
            at, header, (cut_group, cut_lsn, _) = ahead[0]
            if (cut_group, cut_lsn, header["previous_tag"]) == (group, lsn, tag):
                index, block, epoch = at, 2, header["epoch"]
        segment = segments[index] if index < len(segments) else None
        if segment is None or segment.epoch != epoch or block >= segment.blocks:
            place = bytes(BLOCK)
            break
        header = segment.header(lane, block)
        if not header or header["epoch"] != epoch or header["group"] != group + 1:
            place = segment.data[block * BLOCK : (block + 1) * BLOCK]
            break
        place = segment.data[block * BLOCK : (block + header["blocks"]) * BLOCK]
        if header["previous_tag"] != tag or header["first_lsn"] != lsn + 1:
            break
        opened = segment.group(header)
        if opened is None:
            break
        records, tag = opened
        for record in records:
            emit(record)
        group, lsn = header["group"], lsn + header["records"]
        index, block = (index + 1, 2) if header["flags"] & 2 else (index, block + header["blocks"])
    beyond = False
    for at in range(index, len(segments)):
        for number in range(block if at == index else 2, segments[at].blocks):
            data = segments[at].data[number * BLOCK : (number + 1) * BLOCK]
            if is_zero(data):
                continue
            beyond = beyond or (at, number) != (index, block)
            header = segments[at].header(lane, number)
            if header and header["epoch"] >= epoch:
                witness = max(witness, header["durable"])
    witnessed = group + 1 <= witness or lsn < durable_lsn
    if witnessed:
        verdict = "Corrupt"
    elif is_zero(place[:BLOCK]):
        verdict = "Torn" if beyond else "CleanEnd"
    elif any(is_zero(place[at : at + SECTOR]) for at in range(0, len(place), SECTOR)):
        verdict = "Torn"
    else:
        verdict = "Suspect"
    return verdict, group, lsn


def main():
    directory, lane = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    key = tuple(bytes.fromhex(text) for text in sys.argv[3:5]) if len(sys.argv) > 4 else None
    try:
        manifest = read_manifest((directory / f"lane-{lane:08x}.manifest").read_bytes(), lane)
        listed = manifest[6]
        segments = [Segment(directory, lane, number, incarnation, key) for number, incarnation in listed]
        verdict, group, lsn = walk(
            lane,
            manifest,
            segments,
            lambda record: print("record", record[0], record[1], record[2], record[3].hex() or "-"),
        )
        print("verdict", verdict, group, lsn)
    except Refused as refused:
        print("refused", refused)


if __name__ == "__main__":
    main()
