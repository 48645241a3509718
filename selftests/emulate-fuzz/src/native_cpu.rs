// SPDX-License-Identifier: GPL-2.0

//! Runs one instruction on the CPU of the host, in a mode that user space can have.
//!
//! Three pages at low addresses: one with the values of registers, one with code, and one, the
//! window, that instructions under test access. Code of 16 and 32 bits is reached by a far jump:
//! to the segment that Linux has for 32-bit programs, or to one in the LDT.

use std::{
    ffi::c_void,
    mem::transmute,
    ptr::{
        copy_nonoverlapping,
        read_volatile,
        slice_from_raw_parts,
        write_volatile, //
    },
    sync::{
        Mutex,
        MutexGuard, //
    },
};

use super::{
    super::bus::Mode,
    machine::Registers, //
};

extern "C" {
    fn mmap(at: *mut c_void, size: usize, prot: i32, flags: i32, fd: i32, off: i64) -> *mut c_void;
    fn munmap(at: *mut c_void, size: usize) -> i32;
    fn syscall(number: i64, ...) -> i64;
}

/// Bytes of each of the three pages.
pub(super) const PAGE: usize = 4096;

/// Where the pages are tried: 16-bit addresses reach the first place only, which the host may
/// refuse.
const PLACES: [usize; 2] = [0x8000, 0x2000_0000];

/// Offset of the code page, from the first.
const CODE: usize = 2 * PAGE;
/// Offset of the window.
const WINDOW: usize = 4 * PAGE;
/// Bytes from the first page to the end of the last.
const SIZE: usize = 5 * PAGE;

/// Offset of the code that loads registers.
const ENTER: usize = CODE;
/// Offset of the 16-bit or 32-bit half of it.
const ENTER_SEGMENT: usize = CODE + 0x300;
/// Offset of the instruction under test.
const TESTED: usize = CODE + 0x400;
/// Offset of where calls and jumps under test go.
const LANDING: usize = CODE + 0x480;
/// Offset of the code that stores registers and returns.
const LEAVE: usize = CODE + 0x600;
/// Offset of the 64-bit half of it.
const LEAVE_SEGMENT: usize = CODE + 0xa00;

/// Offset of RFLAGS, behind 16 general registers.
const RFLAGS: usize = 16 * 8;
/// Offset of the RSP of the test.
const HOST_RSP: usize = 17 * 8;
/// Offset of the far pointer to `ENTER_SEGMENT`.
const FAR: usize = 18 * 8;
/// Offset of the byte that is not 0 after a branch to the landing.
const LANDED: usize = 19 * 8;
/// Offset of the vector registers.
const VECTORS: usize = 0x400;

/// Linux's code segment of 64 bits.
const CODE64: u16 = 0x33;
/// Linux's code segment of 32 bits.
const CODE32: u16 = 0x23;
/// Linux's data segment.
const DATA: u16 = 0x2b;
/// The first segment in the LDT.
const CODE16: u16 = 7;

/// The pages, of which a process has one set.
static PAGES: Mutex<()> = Mutex::new(());

/// A CPU in one mode. There is one at a time.
pub(super) struct Cpu {
    mode: Mode,
    base: usize,
    _pages: MutexGuard<'static, ()>,
}

impl Cpu {
    /// Returns the CPU in `mode`, or `None` if the host refuses what that needs.
    pub(super) fn new(mode: Mode) -> Option<Self> {
        let pages = PAGES.lock().unwrap_or_else(|poison| poison.into_inner());
        if mode == Mode::Protected16 && !set_ldt() {
            return None;
        }
        let base = PLACES.into_iter().find(|place| map(*place))?;
        let cpu = Self {
            mode,
            base,
            _pages: pages,
        };
        cpu.assemble();
        Some(cpu)
    }

    /// Returns the address of the window.
    pub(super) fn window(&self) -> u64 {
        (self.base + WINDOW) as u64
    }

    /// Returns the address that instructions are run at.
    pub(super) fn rip(&self) -> u64 {
        (self.base + TESTED) as u64
    }

    /// Returns the address that calls and jumps have to go to.
    pub(super) fn landing(&self) -> u64 {
        (self.base + LANDING) as u64
    }

    /// Returns the bytes in the window.
    pub(super) fn memory(&self) -> &[u8] {
        // SAFETY: The page is mapped as long as `self` exists, and is written through `&mut self`
        // only.
        unsafe { &*slice_from_raw_parts((self.base + WINDOW) as *const u8, PAGE) }
    }

    /// Writes `data` to the window.
    pub(super) fn set_memory(&mut self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= PAGE);
        self.put(WINDOW + offset, data);
    }

    /// Runs the instruction `bytes`, which must access nothing but the window.
    ///
    /// RIP is set to the address after the instruction, or to the landing if it came by there.
    pub(super) fn run(
        &mut self,
        bytes: &[u8],
        registers: &mut Registers,
        vectors: &mut [[u8; 32]; 16],
    ) {
        let mut code = bytes.to_vec();
        code.extend(self.jump(TESTED + code.len(), LEAVE));
        self.put(TESTED, &code);
        self.put(LANDED, &[0; 8]);
        for (number, value) in vectors.iter().enumerate() {
            self.put(VECTORS + number * 32, value);
        }

        for (number, value) in registers.gpr.into_iter().enumerate() {
            self.put(number * 8, &value.to_le_bytes());
        }
        self.put(RFLAGS, &registers.rflags.to_le_bytes());

        // SAFETY: The function was written by `assemble()`. It preserves what the ABI wants, and
        // the caller promises that the instruction in its middle accesses the window only.
        let enter: extern "C" fn() = unsafe { transmute(self.base + ENTER) };
        enter();

        for (number, value) in registers.gpr.iter_mut().enumerate() {
            *value = self.value(number * 8);
        }
        registers.rflags = self.value(RFLAGS);
        registers.rip = if self.value(LANDED) != 0 {
            self.landing()
        } else {
            self.rip() + bytes.len() as u64
        };
        for (number, value) in vectors.iter_mut().enumerate() {
            for (index, part) in value.chunks_mut(8).enumerate() {
                let at = VECTORS + number * 32 + index * 8;
                part.copy_from_slice(&self.value(at).to_le_bytes());
            }
        }
    }

    /// Returns the 8 bytes at `offset` from the first page.
    fn value(&self, offset: usize) -> u64 {
        // SAFETY: All offsets are constants inside of the pages, and aligned.
        unsafe { read_volatile((self.base + offset) as *const u64) }
    }

    /// Writes `data` at `offset` from the first page.
    fn put(&self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= SIZE);
        // SAFETY: The range is in the pages, checked above. No reference to it exists: `memory()`
        // borrows `self`, and the window is written through `&mut self`.
        unsafe { copy_nonoverlapping(data.as_ptr(), (self.base + offset) as *mut u8, data.len()) };
    }

    /// Returns `jmp`, standing at the offset `from`, to the offset `to`.
    fn jump(&self, from: usize, to: usize) -> Vec<u8> {
        let prefix: &[u8] = match self.mode {
            Mode::Protected16 => &[0x66],
            _ => &[],
        };
        let end = from + prefix.len() + 5;
        let mut code = prefix.to_vec();
        code.push(0xe9);
        code.extend((to.wrapping_sub(end) as u32).to_le_bytes());
        code
    }

    /// Returns the address of `offset`, as instructions have it.
    fn address(&self, offset: usize) -> [u8; 4] {
        ((self.base + offset) as u32).to_le_bytes()
    }

    /// Returns 64-bit code: `opcode` with `register` and the memory at `offset`.
    fn access64(&self, opcode: u8, register: usize, offset: usize) -> Vec<u8> {
        let rex = 0x48 | ((register as u8 >> 3) << 2);
        let mut code = vec![rex, opcode, 4 | ((register as u8 & 7) << 3), 0x25];
        code.extend(self.address(offset));
        code
    }

    /// Returns 64-bit code: a move of the vector register `register`, with `opcode` (10 to load, 11
    /// to store).
    fn move_vector(&self, opcode: u8, register: usize) -> Vec<u8> {
        let (high, low) = (register as u8 >> 3, register as u8 & 7);
        let mut code = if has_avx() {
            vec![0xc4, 0x61 | ((1 - high) << 7), 0x7c]
        } else {
            vec![0x40 | (high << 2), 0x0f]
        };
        code.extend([opcode, 4 | (low << 3), 0x25]);
        code.extend(self.address(VECTORS + register * 32));
        code
    }

    /// Returns code of a segment: `opcode` with `register` and the memory at `offset`.
    fn access_segment(&self, opcode: u8, register: usize, offset: usize) -> Vec<u8> {
        let mut code = match self.mode {
            Mode::Protected16 => vec![0x66, 0x67],
            _ => vec![],
        };
        code.extend([opcode, 5 | ((register as u8) << 3)]);
        code.extend(self.address(offset));
        code
    }

    /// Writes the code around the instruction under test.
    fn assemble(&self) {
        let long64 = self.mode == Mode::Long64;
        // push rbx, rbp, r12-r15; pushfq; mov [HOST_RSP], rsp
        let mut enter = vec![
            0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x9c,
        ];
        enter.extend(self.access64(0x89, 4, HOST_RSP));
        for register in 0..16 {
            enter.extend(self.move_vector(0x10, register));
        }
        if !long64 {
            // mov eax, DATA; mov ds, eax; mov es, eax
            enter.extend([0xb8, DATA as u8, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0]);
        }
        // push [RFLAGS]; popfq
        enter.extend([0xff, 0x34, 0x25]);
        enter.extend(self.address(RFLAGS));
        enter.push(0x9d);

        // mov [HOST_RSP], rsp backwards; pushfq; pop [RFLAGS]
        let mut leave = self.access64(0x8b, 4, HOST_RSP);
        leave.extend([0x9c, 0x8f, 0x04, 0x25]);
        leave.extend(self.address(RFLAGS));
        for register in 0..16 {
            leave.extend(self.move_vector(0x11, register));
        }
        if !long64 {
            // xor eax, eax; mov ds, eax; mov es, eax
            leave.extend([0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0]);
        }
        // popfq; pop r15-r12, rbp, rbx; ret
        leave.extend([
            0x9d, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3,
        ]);

        if long64 {
            let mut store = Vec::new();
            for register in 0..16 {
                enter.extend(self.access64(0x8b, register, register * 8));
                store.extend(self.access64(0x89, register, register * 8));
            }
            enter.extend(self.jump(ENTER + enter.len(), TESTED));
            store.extend(leave);
            self.put(LEAVE, &store);
        } else {
            self.assemble_segment(&leave);
            // jmp far [FAR]
            enter.extend([0xff, 0x2c, 0x25]);
            enter.extend(self.address(FAR));
        }
        self.put(ENTER, &enter);
        // mov byte [LANDED], 1
        let mut land = match self.mode {
            Mode::Long64 => vec![0xc6, 0x04, 0x25],
            Mode::Protected16 => vec![0x67, 0xc6, 0x05],
            _ => vec![0xc6, 0x05],
        };
        land.extend(self.address(LANDED));
        land.push(1);
        land.extend(self.jump(LANDING + land.len(), LEAVE));
        self.put(LANDING, &land);
    }

    /// Writes the 16-bit or 32-bit halves of the code, and the 64-bit code `leave` behind them.
    fn assemble_segment(&self, leave: &[u8]) {
        let (mut load, mut store) = (Vec::new(), Vec::new());
        for register in 0..8 {
            load.extend(self.access_segment(0x8b, register, register * 8));
            store.extend(self.access_segment(0x89, register, register * 8));
        }
        load.extend(self.jump(ENTER_SEGMENT + load.len(), TESTED));
        self.put(ENTER_SEGMENT, &load);

        // jmp CODE64:LEAVE_SEGMENT, with an offset of 32 bits
        if self.mode == Mode::Protected16 {
            store.push(0x66);
        }
        store.push(0xea);
        store.extend(self.address(LEAVE_SEGMENT));
        store.extend(CODE64.to_le_bytes());
        self.put(LEAVE, &store);
        self.put(LEAVE_SEGMENT, leave);

        let selector = match self.mode {
            Mode::Protected16 => CODE16,
            _ => CODE32,
        };
        self.put(FAR, &self.address(ENTER_SEGMENT));
        self.put(FAR + 4, &selector.to_le_bytes());
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        // SAFETY: `map()` mapped exactly this, and nothing refers to it any more.
        unsafe { munmap(self.base as *mut c_void, SIZE) };
    }
}

/// Returns whether the CPU has vector registers of 32 bytes.
pub(super) fn has_avx() -> bool {
    std::is_x86_feature_detected!("avx")
}

/// Maps the pages at `place`, and returns whether that worked.
fn map(place: usize) -> bool {
    // Read, write, execute; private, anonymous, fixed without replacing what is there.
    let (prot, flags) = (7, 0x2 | 0x20 | 0x10_0000);
    // SAFETY: With these flags no existing mapping changes.
    let at = unsafe { mmap(place as *mut c_void, SIZE, prot, flags, -1, 0) };
    if at as usize == place {
        return true;
    }
    if at as isize != -1 {
        // SAFETY: An old kernel took the place for a hint. This was just mapped.
        unsafe { munmap(at, SIZE) };
    }
    false
}

/// Makes the first segment of the LDT one of 16-bit code, and returns whether that worked.
fn set_ldt() -> bool {
    // struct user_desc: entry, base, limit, and flags: code, readable, limit in pages.
    let mut descriptor: [u32; 4] = [0, 0, 0xf_ffff, (2 << 1) | (1 << 4)];
    let pointer = descriptor.as_mut_ptr();
    // SAFETY: `modify_ldt(1)` reads a descriptor of this size.
    let result = unsafe { syscall(154, 1i64, pointer, size_of_val(&descriptor)) };
    // SAFETY: The array is alive; this keeps it so behind the call.
    unsafe { write_volatile(pointer, 0) };
    result == 0
}
