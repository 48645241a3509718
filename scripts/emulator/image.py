#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Files that the emulator reads into guest memory.

    image.py kernel VMLINUX OUTPUT    flat image, and OUTPUT.json: where it goes
    image.py archive TREE OUTPUT      uncompressed initramfs of a folder
"""

import json
import os
import stat
import struct
import sys

PT_LOAD = 1


def flatten_kernel(path):
    """Returns (physical address, entry point, bytes) of an ELF kernel."""
    with open(path, 'rb') as file:
        elf = file.read()
    entry, headers = struct.unpack_from('<QQ', elf, 24)
    size, count = struct.unpack_from('<HH', elf, 54)
    segments = []
    for i in range(count):
        (kind, _, offset, _, address, length, memory, _) = struct.unpack_from(
            '<IIQQQQQQ', elf, headers + i * size)
        if kind == PT_LOAD and memory:
            segments.append((address, elf[offset:offset + length]))
    base = min(address for address, _ in segments)
    end = max(address + len(data) for address, data in segments)
    image = bytearray(end - base)
    for address, data in segments:
        image[address - base:address - base + len(data)] = data
    return base, entry, image


class Archive:
    """A newc cpio archive, as an initramfs is: everything belongs to root and
    has no time, so that the same contents give the same bytes."""

    def __init__(self, file):
        self.file = file
        self.inode = 0
        self.folders = {''}

    def entry(self, name, mode, data=b''):
        self.inode += 1
        encoded = name.encode() + b'\0'
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(encoded), 0)
        header = b'070701' + b''.join(b'%08x' % field for field in fields) + encoded
        self.file.write(header + bytes(-len(header) % 4))
        self.file.write(data)
        self.file.write(bytes(-len(data) % 4))

    def parents(self, name):
        """Adds the folders that lead to a name."""
        parent = os.path.dirname(name)
        if parent not in self.folders:
            self.parents(parent)
            self.folders.add(parent)
            self.entry(parent, stat.S_IFDIR | 0o755)

    def add_bytes(self, name, data, mode=0o644):
        self.parents(name)
        self.entry(name, stat.S_IFREG | mode, data)

    def add(self, path, name):
        """Adds a file, or a folder with all that is in it."""
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            if name not in self.folders:
                self.parents(name)
                self.folders.add(name)
                self.entry(name, stat.S_IFDIR | 0o755)
            for child in sorted(os.listdir(path)):
                self.add(os.path.join(path, child),
                         os.path.join(name, child) if name else child)
        elif stat.S_ISLNK(info.st_mode):
            self.parents(name)
            self.entry(name, stat.S_IFLNK | 0o777, os.readlink(path).encode())
        else:
            with open(path, 'rb') as file:
                mode = 0o755 if info.st_mode & 0o111 else 0o644
                self.add_bytes(name, file.read(), mode)

    def close(self):
        self.inode = -1
        self.entry('TRAILER!!!', 0)
        self.file.write(bytes(-self.file.tell() % 512))


def main():
    command, source, output = sys.argv[1:]
    with open(output, 'wb') as file:
        if command == 'kernel':
            base, entry, image = flatten_kernel(source)
            file.write(image)
            with open(output + '.json', 'w', encoding='ascii') as about:
                json.dump({'base': base, 'entry': entry, 'size': len(image)}, about)
        else:
            archive = Archive(file)
            archive.add(source, '')
            archive.close()


if __name__ == '__main__':
    main()
