# SPDX-License-Identifier: GPL-2.0
"""The emulated machine: what is put into its memory, how the emulator is set up
and started, and what comes out of it."""

import ctypes
import hashlib
import json
import os
import re
import select
import signal
import struct
import subprocess
import time

from image import Archive

IPS = 100_000_000
MIB = 1 << 20

# name: (model of the emulator, features that are left out)
CPUS = {
    'penryn': ('core2_penryn_t9600', ()),
    'lynnfield': ('corei5_lynnfield_750', ()),
    'arrandale': ('corei5_arrandale_m520', ()),
    'haswell': ('corei7_haswell_4770', ('rdrand',)),
    'skylake_x': ('corei7_skylake_x', ('rdrand', 'rdseed')),
    'sapphire_rapids': ('sapphire_rapids', ('rdrand', 'rdseed', 'cet')),
}

# The parameter block, as scripts/emulator/boot.S expects it.
PARAMETERS = 0x200000
CMDLINE = 0x1000
CMDLINE_SIZE = 0x800
SETUP_DATA = 0x1800
GDT = 0x1f00
GDT_POINTER = 0x1fe0
ENTRY = 0x1ff0
PAGE_TABLES = 0x2000
PAGE = 0x1000

# Channels of scripts/emulator/driver/rig.c.
HELLO, LOG, OUTPUT, STATUS, PANIC = range(5)

TROUBLE = re.compile(
    r'^(\[[ 0-9.]+\] )?(\[ *[TC]\d+\] *)?('
    r'WARNING: |BUG: |kernel BUG at|Oops|general protection fault'
    r'|INFO: (possible|task |rcu|trying to register|suspicious)'
    r'|rcu: INFO: .*stall|UBSAN: |KASAN: |ODEBUG: |DEBUG_LOCKS_WARN_ON'
    r'|=+\[ cut here \]|------------\[ cut here'
    r'|kmemleak: \d+ new suspected|list_(add|del) corruption'
    r'|Kernel panic|unregister_netdevice: waiting)')


def boot_params(kernel, cmdline, initrd, initrd_size, seed):
    """Returns the parameter block of a 64-bit boot."""
    block = bytearray(PAGE_TABLES + 6 * PAGE)
    command = cmdline.encode() + b'\0'
    if len(command) > CMDLINE_SIZE:
        raise ValueError('the kernel command line is too long')

    def put(offset, layout, *values):
        struct.pack_into(layout, block, offset, *values)

    put(0x1fe, '<H', 0xaa55)                    # boot_flag
    put(0x202, '<4sH', b'HdrS', 0x20f)          # header, version
    put(0x210, '<BB', 0xff, 0x01)               # type_of_loader, loadflags
    put(0x218, '<II', initrd, initrd_size)      # ramdisk_image, ramdisk_size
    put(0x228, '<II', PARAMETERS + CMDLINE, 0x7fffffff)
    put(0x230, '<I', 0x200000)                  # kernel_alignment
    put(0x238, '<I', CMDLINE_SIZE)              # cmdline_size
    put(0x250, '<Q', PARAMETERS + SETUP_DATA)   # setup_data
    block[CMDLINE:CMDLINE + len(command)] = command
    # A seed, so that the kernel need not gather one, and is the same each time.
    put(SETUP_DATA, '<QII', 0, 9, 32)
    block[SETUP_DATA + 16:SETUP_DATA + 48] = hashlib.sha256(seed.encode()).digest()
    put(GDT, '<QQQQ', 0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff)
    put(GDT_POINTER, '<HQ', 31, PARAMETERS + GDT)
    put(ENTRY, '<Q', kernel['entry'])

    tables = PARAMETERS + PAGE_TABLES
    put(PAGE_TABLES, '<Q', tables + PAGE | 3)
    for i in range(4):
        put(PAGE_TABLES + PAGE + 8 * i, '<Q', tables + (2 + i) * PAGE | 3)
    for i in range(4 * 512):
        put(PAGE_TABLES + 2 * PAGE + 8 * i, '<Q', i << 21 | 0x83)
    return block


def configuration(emulator, machine, folder, kernel, initrd, serial):
    """Returns the emulator's configuration file."""
    model, excluded = CPUS[machine.cpu]
    excluded = f', exclude_features="{",".join(excluded)}"' if excluded else ''
    com1 = f'mode=file, dev={folder}/serial' if serial else 'mode=null'
    return f'''
display_library: nogui
config_interface: textconfig
memory: guest={machine.memory}, host={min(machine.memory, 2048)}, block_size=2048
romimage: file={emulator}/BIOS-bochs-latest, options=fastboot
vgaromimage: file={emulator}/boot.rom
optramimage1: file={kernel['file']}, address={kernel['base']:#x}
optramimage2: file={folder}/initrd, address={initrd:#x}
optramimage3: file={folder}/parameters, address={PARAMETERS:#x}
cpu: model={model}, count={machine.cpus}, ips={IPS}, reset_on_triple_fault=0, ignore_bad_msrs=1{excluded}
clock: sync=none, time0=1700000000, rtc_sync=0
port_e9_hack: enabled=1
pci: enabled=1, chipset=i440fx
vga: extension=none, update_freq=1
speaker: enabled=1, mode=file, file=/dev/null
boot: floppy
floppya: type=none
ata0: enabled=0
ata1: enabled=0
parport1: enabled=0
com1: enabled=1, {com1}
mouse: enabled=0
log: {folder}/emulator.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
print_timestamps: enabled=0
'''


class Frames:
    """Splits the emulator's standard output into the driver's frames."""

    def __init__(self):
        self.buffer = b''
        self.started = False

    def feed(self, data):
        """Yields (channel, data) for each whole frame."""
        self.buffer += data
        if not self.started:
            start = self.buffer.find(b'\xf9\x00\x0a\x00kvm-rs rig\x00')
            if start < 0:
                return
            self.buffer = self.buffer[start:]
            self.started = True
        position = 0
        while len(self.buffer) - position >= 5:
            if self.buffer[position] != 0xf9:
                # The emulator's last words follow the last frame.
                break
            channel, length = struct.unpack_from('<BH', self.buffer, position + 1)
            end = position + 4 + length + 1
            if len(self.buffer) < end:
                break
            yield channel, self.buffer[position + 4:end - 1]
            position = end
        self.buffer = self.buffer[position:]


class Result:
    """What a run left behind. `status` is None while none is known."""

    def __init__(self):
        self.status = None
        self.ticks = None
        self.log = bytearray()
        self.failure = None
        self.booted = False

    def trouble(self):
        """Returns the first line of the log that no healthy run has."""
        for line in self.log.decode(errors='replace').splitlines():
            if TROUBLE.match(line):
                return line
        return None


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Machine:
    """One machine, to be started once."""

    def __init__(self, options, emulator, image, kvm_rs):
        self.options = options
        self.cpu = options.cpu
        self.cpus = options.cpus
        self.memory = options.memory
        self.emulator = emulator
        self.image = image
        self.kvm_rs = kvm_rs

    def command_line(self):
        words = ['console=rig', 'rdinit=/init', 'panic=-1', 'reboot=t',
                 'tsc=reliable', 'no_timer_check', 'loglevel=8', 'acpi=off',
                 # CPUID tells of another frequency on some models; measuring it is not exact.
                 f'tsc_early_khz={IPS // 1000}', '8250.nr_uarts=1']
        if self.options.kernel == 'debug' and not self.options.kmemleak:
            # It doubles what every allocation costs.
            words.append('kmemleak=off')
        if self.cpus > 1:
            # With either module a CPU whose tick had stopped lost a timer now and then.
            words.append('nohz=off')
        return ' '.join(words + [self.options.cmdline]).strip()

    def write_initrd(self, path, run_script):
        with open(path, 'wb') as file:
            with open(os.path.join(self.image, 'base.cpio'), 'rb') as base:
                file.write(base.read())
            archive = Archive(file)
            archive.add_bytes('rig/run.sh', run_script.encode(), 0o755)
            if self.kvm_rs:
                archive.add(self.kvm_rs, 'rig/modules/kvm_rs.ko')
            for host, guest in self.options.add:
                archive.add(host, guest)
            archive.close()

    def prepare(self, folder, run_script, serial=False):
        """Writes all files of a run into a folder."""
        with open(os.path.join(self.image, 'kernel.json'), encoding='ascii') as file:
            kernel = json.load(file)
        kernel['file'] = os.path.join(self.image, 'kernel')
        initrd_path = os.path.join(folder, 'initrd')
        self.write_initrd(initrd_path, run_script)
        size = os.path.getsize(initrd_path)
        # Below the ACPI tables at the end of memory, and where the emulator can read it to.
        end = self.memory if self.memory <= 2048 else 1024
        initrd = (end * MIB - MIB - size) & ~(PAGE - 1)
        if initrd < kernel['base'] + kernel['size'] + 64 * MIB:
            raise ValueError(f'{size // MIB} MiB of files do not fit into '
                             f'{self.memory} MiB of memory')
        cmdline = self.command_line()
        if serial:
            cmdline += ' earlyprintk=serial,ttyS0,115200,keep ignore_loglevel'
        with open(os.path.join(folder, 'parameters'), 'wb') as file:
            file.write(boot_params(kernel, cmdline, initrd, size,
                                   self.options.seed))
        with open(os.path.join(folder, 'bochsrc'), 'w', encoding='ascii') as file:
            file.write(configuration(self.emulator, self, folder, kernel,
                                     initrd, serial))

    def run(self, folder, timeout, output):
        """Starts the machine; calls output with what the command writes."""
        result = Result()
        frames = Frames()
        deadline = time.monotonic() + timeout
        with open(os.path.join(folder, 'emulator.err'), 'wb') as errors, \
                subprocess.Popen(
                    [os.path.join(self.emulator, 'bochs'), '-q', '-f',
                     os.path.join(folder, 'bochsrc')],
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                    env={'TZ': 'UTC', 'HOME': folder, 'PATH': '/usr/bin:/bin'},
                    preexec_fn=die_with_parent) as process:
            pipe = process.stdout.fileno()
            try:
                while result.status is None and not result.failure:
                    left = deadline - time.monotonic()
                    if left <= 0 or not select.select([pipe], [], [], left)[0]:
                        result.failure = 'timeout'
                        break
                    data = os.read(pipe, 1 << 16)
                    if not data:
                        result.failure = 'the machine stopped'
                        break
                    for channel, text in frames.feed(data):
                        self.take(result, channel, text, output)
            finally:
                process.kill()
        return result

    @staticmethod
    def take(result, channel, text, output):
        if channel == HELLO:
            result.booted = True
        elif channel == LOG:
            result.log += text
        elif channel == OUTPUT:
            output(text)
        elif channel == PANIC:
            result.failure = 'the kernel panicked: ' + text.decode(errors='replace')
        elif channel == STATUS:
            word, result.ticks = text.decode().split('@')
            if word.strip().isdecimal():
                result.status = int(word)
            else:
                result.failure = 'a module ' + word.strip()
