// SPDX-License-Identifier: GPL-2.0

//! The two pages that a vCPU shares with its client: `struct kvm_run` and the data of port I/O. Behind
//! them the client's mapping shows one of the VM, the ring of coalesced I/O.
//!
//! The client can write to them at any time. So every access is a volatile one of plain integers, and
//! nothing that was written is ever read back and trusted.

use crate::{
    bindings::{
        self,
        kvm_regs,
        kvm_run,
        kvm_sregs,
        kvm_vcpu_events, //
    },
    linux::{
        anon_inode::MappedPage,
        page::KernelPage, //
    }, //
};
use kernel::prelude::*;

/// Offset of the port-I/O data in the mapping.
pub(crate) const DATA_OFFSET: usize = 4096;

/// Number of bytes of port-I/O data.
pub(crate) const DATA_SIZE: usize = 4096;

/// Index of the page in the mapping that is the VM's ring of coalesced I/O.
pub(crate) const COALESCED_PAGE: usize = 2;

/// Number of bytes that a client maps.
pub(crate) const MAPPING_SIZE: usize = 12288;

const _: () = assert!(size_of::<kvm_run>() <= 4096);

/// The pages of one vCPU.
pub(crate) struct RunPage {
    run: KernelPage,
    data: KernelPage,
}

macro_rules! set {
    ($self:ident.$($field:tt).+ = $value:expr) => {{
        let run = $self.run.as_ptr().cast::<kvm_run>().as_ptr();
        let value = $value;
        // SAFETY: `run` is a page that lives as long as `self` and is large enough; the field consists
        // of integers, of which every bit pattern is valid.
        unsafe { (&raw mut (*run).$($field).+).write_volatile(value) };
    }};
}

macro_rules! get {
    ($self:ident.$($field:tt).+) => {{
        let run = $self.run.as_ptr().cast::<kvm_run>().as_ptr();
        // SAFETY: As in `set`.
        unsafe { (&raw const (*run).$($field).+).read_volatile() }
    }};
}

impl RunPage {
    /// Returns zeroed pages.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            run: KernelPage::new()?,
            data: KernelPage::new()?,
        })
    }

    /// Returns the page at `index` of the mapping.
    pub(crate) fn page(&self, index: usize) -> Option<MappedPage> {
        match index {
            0 => Some(MappedPage(self.run.as_ptr())),
            1 => Some(MappedPage(self.data.as_ptr())),
            _ => None,
        }
    }

    /// Returns whether the client wants KVM_RUN to return at once.
    #[inline]
    pub(crate) fn immediate_exit(&self) -> bool {
        get!(self.immediate_exit__unsafe) != 0
    }

    /// Returns whether the client wants to know when the guest can take an interrupt.
    #[inline]
    pub(crate) fn wants_interrupt_window(&self) -> bool {
        get!(self.request_interrupt_window) != 0
    }

    /// Returns the task priority that the client's local APIC has.
    pub(crate) fn cr8(&self) -> u64 {
        get!(self.cr8)
    }

    /// Returns the reason of the exit to the client.
    pub(crate) fn exit_reason(&self) -> u32 {
        get!(self.exit_reason)
    }

    /// Sets the reason of the exit to the client.
    pub(crate) fn set_exit_reason(&self, reason: u32) {
        set!(self.exit_reason = reason);
    }

    /// Sets what every exit to the client reports.
    pub(crate) fn set_state(&self, if_flag: bool, ready: bool, cr8: u64, apic_base: u64) {
        set!(self.if_flag = u8::from(if_flag));
        set!(self.flags = 0);
        set!(self.cr8 = cr8);
        set!(self.apic_base = apic_base);
        set!(self.ready_for_interrupt_injection = u8::from(ready));
    }

    /// Sets up KVM_EXIT_IO for `count` accesses of `size` bytes.
    pub(crate) fn set_io(&self, input: bool, size: u8, port: u16, count: u32) {
        self.set_exit_reason(bindings::KVM_EXIT_IO);
        let direction = if input {
            bindings::KVM_EXIT_IO_IN
        } else {
            bindings::KVM_EXIT_IO_OUT
        };
        // CAST: 0 or 1.
        set!(self.__bindgen_anon_1.io.direction = direction as u8);
        set!(self.__bindgen_anon_1.io.size = size);
        set!(self.__bindgen_anon_1.io.port = port);
        set!(self.__bindgen_anon_1.io.count = count);
        set!(self.__bindgen_anon_1.io.data_offset = DATA_OFFSET as u64);
    }

    /// Copies port-I/O data to the client; what does not fit is left out.
    pub(crate) fn write_data(&self, data: &[u8]) {
        let page = self.data.as_ptr().as_ptr();
        for (index, &byte) in data.iter().take(DATA_SIZE).enumerate() {
            // SAFETY: `index` is inside the page, which lives as long as `self`.
            unsafe { page.add(index).write_volatile(byte) };
        }
    }

    /// Copies port-I/O data from the client.
    pub(crate) fn read_data(&self, data: &mut [u8]) {
        let page = self.data.as_ptr().as_ptr();
        for (index, byte) in data.iter_mut().take(DATA_SIZE).enumerate() {
            // SAFETY: `index` is inside the page, which lives as long as `self`.
            *byte = unsafe { page.add(index).read_volatile() };
        }
    }

    /// Sets up KVM_EXIT_MMIO for an access of `len` bytes, at most 8.
    pub(crate) fn set_mmio(&self, gpa: u64, len: u32, write: Option<[u8; 8]>) {
        self.set_exit_reason(bindings::KVM_EXIT_MMIO);
        set!(self.__bindgen_anon_1.mmio.phys_addr = gpa);
        set!(self.__bindgen_anon_1.mmio.len = len);
        set!(self.__bindgen_anon_1.mmio.is_write = u8::from(write.is_some()));
        if let Some(data) = write {
            set!(self.__bindgen_anon_1.mmio.data = data);
        }
    }

    /// Returns the data that the client gave to a read of MMIO.
    pub(crate) fn mmio_data(&self) -> [u8; 8] {
        get!(self.__bindgen_anon_1.mmio.data)
    }

    /// Sets up KVM_EXIT_IOAPIC_EOI for an interrupt with this vector.
    pub(crate) fn set_ioapic_eoi(&self, vector: u8) {
        self.set_exit_reason(bindings::KVM_EXIT_IOAPIC_EOI);
        set!(self.__bindgen_anon_1.eoi.vector = vector);
    }

    /// Sets up KVM_EXIT_DEBUG for an exception at the linear address `pc`.
    pub(crate) fn set_debug(&self, exception: u32, pc: u64) {
        self.set_exit_reason(bindings::KVM_EXIT_DEBUG);
        set!(self.__bindgen_anon_1.debug.arch.exception = exception);
        set!(self.__bindgen_anon_1.debug.arch.pc = pc);
    }

    /// Sets the debug registers of KVM_EXIT_DEBUG.
    pub(crate) fn set_debug_registers(&self, dr6: u64, dr7: u64) {
        set!(self.__bindgen_anon_1.debug.arch.dr6 = dr6);
        set!(self.__bindgen_anon_1.debug.arch.dr7 = dr7);
    }

    /// Returns which registers the client wants in the page after KVM_RUN, as a mask of KVM_SYNC_X86_*.
    pub(crate) fn valid_registers(&self) -> u64 {
        get!(self.kvm_valid_regs)
    }

    /// Returns which registers the client has changed in the page.
    pub(crate) fn dirty_registers(&self) -> u64 {
        get!(self.kvm_dirty_regs)
    }

    /// Tells the client that registers of the page were taken.
    pub(crate) fn take_registers(&self, mask: u64) {
        set!(self.kvm_dirty_regs = self.dirty_registers() & !mask);
    }

    /// Returns the general registers that the client put into the page.
    pub(crate) fn general_registers(&self) -> kvm_regs {
        get!(self.s.regs.regs)
    }

    /// Puts the general registers into the page.
    pub(crate) fn set_general_registers(&self, registers: kvm_regs) {
        set!(self.s.regs.regs = registers);
    }

    /// Returns the special registers that the client put into the page.
    pub(crate) fn special_registers(&self) -> kvm_sregs {
        get!(self.s.regs.sregs)
    }

    /// Puts the special registers into the page.
    pub(crate) fn set_special_registers(&self, registers: kvm_sregs) {
        set!(self.s.regs.sregs = registers);
    }

    /// Returns the events that the client put into the page.
    pub(crate) fn events(&self) -> kvm_vcpu_events {
        get!(self.s.regs.events)
    }

    /// Puts the events into the page.
    pub(crate) fn set_events(&self, events: kvm_vcpu_events) {
        set!(self.s.regs.events = events);
    }

    /// Sets up KVM_EXIT_FAIL_ENTRY.
    pub(crate) fn set_fail_entry(&self, reason: u64, cpu: u32) {
        self.set_exit_reason(bindings::KVM_EXIT_FAIL_ENTRY);
        set!(
            self.__bindgen_anon_1
                .fail_entry
                .hardware_entry_failure_reason = reason
        );
        set!(self.__bindgen_anon_1.fail_entry.cpu = cpu);
    }

    /// Sets up KVM_EXIT_INTERNAL_ERROR with up to 16 words of details.
    pub(crate) fn set_internal_error(&self, suberror: u32, details: &[u64]) {
        self.set_exit_reason(bindings::KVM_EXIT_INTERNAL_ERROR);
        set!(self.__bindgen_anon_1.internal.suberror = suberror);
        let mut data = [0; 16];
        let mut count = 0;
        for (word, &detail) in data.iter_mut().zip(details) {
            *word = detail;
            count += 1;
        }
        set!(self.__bindgen_anon_1.internal.data = data);
        set!(self.__bindgen_anon_1.internal.ndata = count);
    }

    /// Sets up KVM_EXIT_MEMORY_FAULT for an access to `size` bytes at `gpa`.
    pub(crate) fn set_memory_fault(&self, gpa: u64, size: u64) {
        self.set_exit_reason(bindings::KVM_EXIT_MEMORY_FAULT);
        set!(self.__bindgen_anon_1.memory_fault.flags = 0);
        set!(self.__bindgen_anon_1.memory_fault.gpa = gpa);
        set!(self.__bindgen_anon_1.memory_fault.size = size);
    }

    /// Sets up KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR for one KVM_MSR_EXIT_REASON_*.
    pub(crate) fn set_msr(&self, exit: u32, reason: u32, index: u32, data: u64) {
        self.set_exit_reason(exit);
        set!(self.__bindgen_anon_1.msr.error = 0);
        set!(self.__bindgen_anon_1.msr.pad = [0; 7]);
        set!(self.__bindgen_anon_1.msr.reason = reason);
        set!(self.__bindgen_anon_1.msr.index = index);
        set!(self.__bindgen_anon_1.msr.data = data);
    }

    /// Returns what the client read from an MSR, or `None` if it wants the access to fail.
    pub(crate) fn msr_data(&self) -> Option<u64> {
        let failed = get!(self.__bindgen_anon_1.msr.error) != 0;
        (!failed).then(|| get!(self.__bindgen_anon_1.msr.data))
    }

    /// Sets up KVM_EXIT_TPR_ACCESS for an instruction at `rip`.
    pub(crate) fn set_tpr_access(&self, rip: u64, write: bool) {
        self.set_exit_reason(bindings::KVM_EXIT_TPR_ACCESS);
        set!(self.__bindgen_anon_1.tpr_access.rip = rip);
        set!(self.__bindgen_anon_1.tpr_access.is_write = u32::from(write));
    }

    /// Sets up KVM_EXIT_HYPERCALL.
    pub(crate) fn set_hypercall(&self, number: u64, arguments: [u64; 6], flags: u64) {
        self.set_exit_reason(bindings::KVM_EXIT_HYPERCALL);
        set!(self.__bindgen_anon_1.hypercall.nr = number);
        set!(self.__bindgen_anon_1.hypercall.args = arguments);
        // Clients that do not know of it leave it as it is.
        set!(self.__bindgen_anon_1.hypercall.ret = 0);
        set!(self.__bindgen_anon_1.hypercall.__bindgen_anon_1.flags = flags);
    }

    /// Returns what the client wants a hypercall to return.
    pub(crate) fn hypercall_result(&self) -> u64 {
        get!(self.__bindgen_anon_1.hypercall.ret)
    }

    /// Sets up KVM_EXIT_SYSTEM_EVENT or another exit without details.
    pub(crate) fn set_plain(&self, reason: u32) {
        self.set_exit_reason(reason);
    }
}
