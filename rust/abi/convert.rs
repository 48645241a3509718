// SPDX-License-Identifier: GPL-2.0

//! Registers between their uapi structures and the module's own types.

use crate::{
    bindings::{
        kvm_dtable,
        kvm_fpu,
        kvm_regs,
        kvm_segment,
        kvm_sregs,
        kvm_sregs2,
        kvm_x86_mce, //
        KVM_SREGS2_FLAGS_PDPTRS_VALID,
    },
    linux::{
        fpu::FXSAVE_SIZE,
        uaccess::zeroed, //
    },
    vcpu::registers::{
        GeneralRegisters,
        SystemRegisters, //
    },
    vmx::guest_state::DescriptorTable,
    x86::{
        control_regs::{
            rules::Paging, //
            Cr0,
            Cr4,
            Efer,
        },
        guest_msr::Reported,
        segment::{
            Segment,
            SegmentFields, //
        },
    },
};

/// Returns general registers as the client sees them.
pub(super) fn to_regs(registers: &GeneralRegisters) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] =
        registers.gpr;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: registers.rip,
        rflags: registers.rflags,
    }
}

/// Returns general registers from what the client gave.
pub(super) fn from_regs(regs: &kvm_regs) -> GeneralRegisters {
    GeneralRegisters {
        gpr: [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ],
        rip: regs.rip,
        rflags: regs.rflags,
    }
}

fn to_segment(segment: Segment) -> kvm_segment {
    let fields = segment.to_fields();
    kvm_segment {
        base: fields.base,
        limit: fields.limit,
        selector: fields.selector,
        type_: fields.type_,
        present: fields.present,
        dpl: fields.dpl,
        db: fields.db,
        s: fields.s,
        l: fields.l,
        g: fields.g,
        avl: fields.avl,
        unusable: fields.unusable,
        padding: 0,
    }
}

fn from_segment(segment: &kvm_segment) -> Segment {
    Segment::from_fields(&SegmentFields {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.type_,
        present: segment.present,
        dpl: segment.dpl,
        db: segment.db,
        s: segment.s,
        l: segment.l,
        g: segment.g,
        avl: segment.avl,
        unusable: segment.unusable,
    })
}

fn to_table(table: DescriptorTable) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        padding: [0; 3],
    }
}

fn from_table(table: &kvm_dtable) -> DescriptorTable {
    DescriptorTable {
        base: table.base,
        limit: table.limit,
    }
}

/// Returns special registers as the client sees them.
pub(super) fn to_sregs(registers: &SystemRegisters) -> kvm_sregs {
    let [es, cs, ss, ds, fs, gs, ldt, tr] = registers.segments;
    let mut sregs: kvm_sregs = zeroed();
    sregs.es = to_segment(es);
    sregs.cs = to_segment(cs);
    sregs.ss = to_segment(ss);
    sregs.ds = to_segment(ds);
    sregs.fs = to_segment(fs);
    sregs.gs = to_segment(gs);
    sregs.ldt = to_segment(ldt);
    sregs.tr = to_segment(tr);
    sregs.gdt = to_table(registers.gdt);
    sregs.idt = to_table(registers.idt);
    sregs.cr0 = registers.cr0.value();
    sregs.cr2 = registers.cr2;
    sregs.cr3 = registers.cr3;
    sregs.cr4 = registers.cr4.value();
    sregs.cr8 = registers.cr8;
    sregs.efer = registers.efer.value();
    sregs.apic_base = registers.apic_base;
    if let Some(vector) = registers.interrupt {
        if let Some(word) = sregs.interrupt_bitmap.get_mut(usize::from(vector) / 64) {
            *word |= 1 << (vector % 64);
        }
    }
    sregs
}

/// Returns special registers from what the client gave.
pub(super) fn from_sregs(sregs: &kvm_sregs) -> SystemRegisters {
    let interrupt = sregs
        .interrupt_bitmap
        .iter()
        .zip([0u8, 64, 128, 192])
        // CAST: A bit number below 64.
        .find(|(&word, _)| word != 0)
        .map(|(word, base)| base + word.trailing_zeros() as u8);
    SystemRegisters {
        segments: [
            from_segment(&sregs.es),
            from_segment(&sregs.cs),
            from_segment(&sregs.ss),
            from_segment(&sregs.ds),
            from_segment(&sregs.fs),
            from_segment(&sregs.gs),
            from_segment(&sregs.ldt),
            from_segment(&sregs.tr),
        ],
        gdt: from_table(&sregs.gdt),
        idt: from_table(&sregs.idt),
        cr0: Cr0::new(sregs.cr0),
        cr2: sregs.cr2,
        cr3: sregs.cr3,
        cr4: Cr4::new(sregs.cr4),
        cr8: sregs.cr8,
        efer: Efer::new(sregs.efer),
        apic_base: sregs.apic_base,
        interrupt,
        pdptes: None,
    }
}

/// Returns special registers, with the PDPTEs if there are some, as the client sees them.
pub(super) fn to_sregs2(registers: &SystemRegisters) -> kvm_sregs2 {
    let sregs = to_sregs(registers);
    let mut sregs2: kvm_sregs2 = zeroed();
    sregs2.cs = sregs.cs;
    sregs2.ds = sregs.ds;
    sregs2.es = sregs.es;
    sregs2.fs = sregs.fs;
    sregs2.gs = sregs.gs;
    sregs2.ss = sregs.ss;
    sregs2.tr = sregs.tr;
    sregs2.ldt = sregs.ldt;
    sregs2.gdt = sregs.gdt;
    sregs2.idt = sregs.idt;
    sregs2.cr0 = sregs.cr0;
    sregs2.cr2 = sregs.cr2;
    sregs2.cr3 = sregs.cr3;
    sregs2.cr4 = sregs.cr4;
    sregs2.cr8 = sregs.cr8;
    sregs2.efer = sregs.efer;
    sregs2.apic_base = sregs.apic_base;
    if let Some(pdptes) = registers.pdptes {
        sregs2.flags = u64::from(KVM_SREGS2_FLAGS_PDPTRS_VALID);
        sregs2.pdptrs = pdptes;
    }
    sregs2
}

/// Returns special registers from what the client gave; `None` for unknown flags, or for PDPTEs where
/// the guest has none.
pub(super) fn from_sregs2(sregs2: &kvm_sregs2) -> Option<SystemRegisters> {
    const HAS_PDPTES: u64 = KVM_SREGS2_FLAGS_PDPTRS_VALID as u64;
    if sregs2.flags & !HAS_PDPTES != 0 {
        return None;
    }
    let (cr0, cr4) = (Cr0::new(sregs2.cr0), Cr4::new(sregs2.cr4));
    let efer = Efer::new(sregs2.efer);
    let pdptes = (sregs2.flags & HAS_PDPTES != 0).then_some(sregs2.pdptrs);
    if pdptes.is_some() && Paging::of(cr0, cr4, efer) != Paging::Pae {
        return None;
    }
    Some(SystemRegisters {
        segments: [
            from_segment(&sregs2.es),
            from_segment(&sregs2.cs),
            from_segment(&sregs2.ss),
            from_segment(&sregs2.ds),
            from_segment(&sregs2.fs),
            from_segment(&sregs2.gs),
            from_segment(&sregs2.ldt),
            from_segment(&sregs2.tr),
        ],
        gdt: from_table(&sregs2.gdt),
        idt: from_table(&sregs2.idt),
        cr0,
        cr2: sregs2.cr2,
        cr3: sregs2.cr3,
        cr4,
        cr8: sregs2.cr8,
        efer,
        apic_base: sregs2.apic_base,
        interrupt: None,
        pdptes,
    })
}

/// Where things are in an FXSAVE image, and how long they are.
mod fxsave {
    use core::ops::Range;
    pub(super) const FCW: Range<usize> = 0..2;
    pub(super) const FSW: Range<usize> = 2..4;
    pub(super) const FTW: usize = 4;
    pub(super) const FOP: Range<usize> = 6..8;
    pub(super) const FIP: Range<usize> = 8..16;
    pub(super) const FDP: Range<usize> = 16..24;
    pub(super) const ST: Range<usize> = 32..160;
    pub(super) const XMM: Range<usize> = 160..416;
}

/// Copies between two slices of the same length; nothing is done for others.
fn copy(target: Option<&mut [u8]>, source: Option<&[u8]>) {
    if let (Some(target), Some(source)) = (target, source) {
        if target.len() == source.len() {
            target.copy_from_slice(source);
        }
    }
}

/// Returns x87 and SSE state as the client sees it.
///
/// As in KVM, MXCSR is not part of it: it reads as 0 and is not written.
pub(super) fn to_fpu(image: &[u8; FXSAVE_SIZE]) -> kvm_fpu {
    let word = |range| {
        image
            .get(range)
            .and_then(|bytes: &[u8]| bytes.try_into().ok())
            .map_or(0, u16::from_le_bytes)
    };
    let long = |range| {
        image
            .get(range)
            .and_then(|bytes: &[u8]| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let mut fpu: kvm_fpu = zeroed();
    copy(Some(fpu.fpr.as_flattened_mut()), image.get(fxsave::ST));
    copy(Some(fpu.xmm.as_flattened_mut()), image.get(fxsave::XMM));
    fpu.fcw = word(fxsave::FCW);
    fpu.fsw = word(fxsave::FSW);
    fpu.ftwx = image.get(fxsave::FTW).copied().unwrap_or(0);
    fpu.last_opcode = word(fxsave::FOP);
    fpu.last_ip = long(fxsave::FIP);
    fpu.last_dp = long(fxsave::FDP);
    fpu
}

/// Writes what the client gave into an FXSAVE image.
pub(super) fn from_fpu(fpu: &kvm_fpu, image: &mut [u8; FXSAVE_SIZE]) {
    copy(image.get_mut(fxsave::ST), Some(fpu.fpr.as_flattened()));
    copy(image.get_mut(fxsave::XMM), Some(fpu.xmm.as_flattened()));
    copy(image.get_mut(fxsave::FCW), Some(&fpu.fcw.to_le_bytes()));
    copy(image.get_mut(fxsave::FSW), Some(&fpu.fsw.to_le_bytes()));
    if let Some(byte) = image.get_mut(fxsave::FTW) {
        *byte = fpu.ftwx;
    }
    copy(
        image.get_mut(fxsave::FOP),
        Some(&fpu.last_opcode.to_le_bytes()),
    );
    copy(image.get_mut(fxsave::FIP), Some(&fpu.last_ip.to_le_bytes()));
    copy(image.get_mut(fxsave::FDP), Some(&fpu.last_dp.to_le_bytes()));
}

/// Returns a machine check to be injected.
pub(super) fn from_mce(mce: &kvm_x86_mce) -> Reported {
    Reported {
        status: mce.status,
        address: mce.addr,
        misc: mce.misc,
        global_status: mce.mcg_status,
    }
}
