// SPDX-License-Identifier: GPL-2.0

//! The table of supported CPUID, and one guest's.

use super::host::{
    model,
    supported,
    Host, //
};
use crate::x86::cpuid::{
    fill,
    fill_emulated,
    find,
    CpuidEntry,
    Feature,
    Features,
    GuestCpuid,
    GuestFeatures,
    Model,
    Refused,
    Runtime,
    Supported,
    TooBig,
    MAX_ENTRIES, //
};

/// The state of a vCPU as kernel selftests set it up: XSAVE on, APIC enabled.
const RUNNING: Runtime = Runtime {
    osxsave: true,
    pke: false,
    apic_enabled: true,
    mwait: None,
    xcr0: 7,
    xss: 0,
};

/// Returns the table that a host and a module make.
fn table(host: &Host, model: &Model) -> Vec<CpuidEntry> {
    let mut entries = vec![CpuidEntry::default(); MAX_ENTRIES];
    let len = fill(host, model, &mut entries).expect("256 rows are enough");
    entries.truncate(len);
    entries
}

/// Returns the table of the default host and module.
fn default_table() -> Vec<CpuidEntry> {
    table(&Host::default(), &model())
}

/// Returns the registers of one row, which must be there.
fn regs(entries: &[CpuidEntry], leaf: u32, index: u32) -> [u32; 4] {
    find(entries, leaf, index).expect("the row exists").regs()
}

#[test]
fn the_table_has_the_order_and_flags_of_kvm() {
    let entries = default_table();
    let rows = entries
        .iter()
        .map(|entry| (entry.function, entry.index, entry.flags))
        .collect::<Vec<_>>();
    let mut expected = Vec::new();
    for leaf in 0..=0xd {
        let indices = match leaf {
            4 => 0..=4,
            0xd => 0..=2,
            _ => 0..=0,
        };
        let flags = u32::from(matches!(leaf, 4 | 7 | 0xb | 0xd));
        expected.extend(indices.map(|index| (leaf, index, flags)));
    }
    expected.extend((0x8000_0000..=0x8000_0008).map(|leaf| (leaf, 0, 0)));
    expected.extend([(0x4000_0000, 0, 0), (0x4000_0001, 0, 0)]);
    assert_eq!(rows, expected);
}

#[test]
fn a_table_too_small_is_told() {
    let len = default_table().len();
    for room in 0..len {
        let mut entries = vec![CpuidEntry::default(); room];
        assert_eq!(fill(&Host::default(), &model(), &mut entries), Err(TooBig));
    }
    let mut entries = vec![CpuidEntry::default(); len];
    assert_eq!(fill(&Host::default(), &model(), &mut entries), Ok(len));

    for (room, result) in [(0, Err(TooBig)), (3, Err(TooBig)), (4, Ok(3))] {
        let mut entries = vec![CpuidEntry::default(); room];
        assert_eq!(fill_emulated(&mut entries), result);
    }
}

#[test]
fn features_pass_by_host_kernel_and_module() {
    let has = |model: &Model, feature| model.features.has(feature);
    let all = model();
    for feature in [
        Feature::XSAVE,
        Feature::AVX2,
        Feature::INVPCID,
        Feature::RDTSCP,
        Feature::X2APIC,
        Feature::TSC_DEADLINE,
        Feature::HYPERVISOR,
        Feature::APIC,
        Feature::GBPAGES,
        Feature::XSAVEOPT,
        Feature::INVARIANT_TSC,
        Feature::ARCH_CAPABILITIES,
    ] {
        assert!(has(&all, feature), "{feature:?}");
    }
    for feature in [
        Feature::VMX,
        Feature::MWAIT,
        Feature::OSXSAVE,
        Feature::PDCM,
        Feature::DS,
        Feature::SMAP,
        Feature::LA57,
        Feature::UMIP,
        Feature::RDPID,
        Feature::SPEC_CTRL,
    ] {
        assert!(!has(&all, feature), "{feature:?}");
    }

    let least = Model::new(&Host::default(), Supported::default());
    for feature in [
        Feature::XSAVE,
        Feature::INVPCID,
        Feature::RDTSCP,
        Feature::X2APIC,
        Feature::TSC_DEADLINE,
    ] {
        assert!(!has(&least, feature), "{feature:?}");
    }

    let mut host = Host::default();
    host.hidden[9] = Feature::SMEP.mask();
    host.hidden[4] = Feature::PCID.mask();
    let model = Model::new(&host, supported());
    assert!(!has(&model, Feature::SMEP) && !has(&model, Feature::PCID));
    assert!(has(&model, Feature::FSGSBASE));

    let umip = Supported {
        umip_emulated: true,
        vmx: true,
        ..supported()
    };
    let model = Model::new(&Host::default(), umip);
    assert!(has(&model, Feature::UMIP) && has(&model, Feature::VMX));
}

#[test]
fn leaves_hold_what_they_should() {
    let entries = default_table();
    assert_eq!(regs(&entries, 0, 0)[0], 0xd);
    // No APIC ID of the CPU that filled the table.
    assert_eq!(regs(&entries, 1, 0)[1], 0x0010_0800);
    assert_eq!(regs(&entries, 4, 4), [0; 4]);
    assert_eq!(regs(&entries, 6, 0), [4, 0, 0, 0]);
    for leaf in [3, 5, 0xa, 0xb] {
        assert_eq!(regs(&entries, leaf, 0), [0; 4]);
    }
    assert_eq!(regs(&entries, 0xd, 0), [7, 832, 832, 0]);
    assert_eq!(regs(&entries, 0xd, 1), [1, 0, 0, 0]);
    assert_eq!(regs(&entries, 0xd, 2), [256, 576, 0, 0]);
    assert_eq!(regs(&entries, 0x8000_0000, 0)[0], 0x8000_0008);
    assert_eq!(regs(&entries, 0x8000_0008, 0), [0x27_3027, 0, 0, 0]);
    let [max, b, c, d] = regs(&entries, 0x4000_0000, 0);
    assert_eq!(max, 0x4000_0001);
    let name = [b, c, d].map(u32::to_le_bytes).concat();
    assert_eq!(name, b"KVMKVMKVM\0\0\0");
    assert_eq!(regs(&entries, 0x4000_0001, 0), [0; 4]);
}

#[test]
fn address_widths_follow_ept_and_paging() {
    let width = |supported| {
        let model = Model::new(&Host::default(), supported);
        regs(&table(&Host::default(), &model), 0x8000_0008, 0)[0]
    };
    let shadow = Supported {
        ept: false,
        host_physical_bits: 36,
        ..supported()
    };
    assert_eq!(width(shadow), 0x3024);
    let wide = Supported {
        la57: true,
        ..supported()
    };
    assert_eq!(width(wide), 0x27_3927);
}

#[test]
fn without_xsave_there_is_no_area() {
    let none = Supported {
        host_xcr0: 0,
        ..supported()
    };
    assert_eq!(none.xcr0(), 0);
    let model = Model::new(&Host::default(), none);
    let entries = table(&Host::default(), &model);
    assert_eq!(regs(&entries, 0xd, 0), [0, 576, 576, 0]);
    for lost in [
        Feature::XSAVE,
        Feature::XSAVEOPT,
        Feature::AVX,
        Feature::AVX2,
    ] {
        assert!(!model.features.has(lost), "{lost:?}");
    }
    assert!(model.features.has(Feature::SSE4_2));
    assert!(find(&entries, 0xd, 1).is_none());
    let pku = |ept| Supported {
        host_xcr0: 0x2e7,
        pku: true,
        ept,
        ..supported()
    };
    assert_eq!(pku(true).xcr0(), 0x2e7);
    assert_eq!(pku(false).xcr0(), 0xe7);
}

/// As cpuid_test does: every row of the table comes back, and so does the table.
#[test]
fn a_guest_sees_its_table() {
    let model = model();
    let mut cpuid = GuestCpuid::new(Vec::new());
    let entries = default_table();
    assert_eq!(
        cpuid.replace(entries.clone(), false, &RUNNING, &model.layout),
        Ok(())
    );
    for entry in cpuid.entries() {
        assert_eq!(cpuid.cpuid(entry.function, entry.index), entry.regs());
    }
    for (ours, theirs) in cpuid.entries().iter().zip(&entries) {
        match ours.function {
            1 => assert_eq!(ours.ecx, theirs.ecx | Feature::OSXSAVE.mask()),
            _ => assert_eq!(ours, theirs),
        }
    }
}

/// As cpuid_test and cr4_cpuid_sync_test do: runtime bits come and go, and do not count as a
/// change of a table that must not change any more.
#[test]
fn runtime_bits_follow_the_registers() {
    let model = model();
    let mut cpuid = GuestCpuid::new(default_table());
    let osxsave = |cpuid: &GuestCpuid<Vec<_>>| cpuid.cpuid(1, 0)[2] & Feature::OSXSAVE.mask() != 0;
    let apic = |cpuid: &GuestCpuid<Vec<_>>| cpuid.cpuid(1, 0)[3] & Feature::APIC.mask() != 0;
    cpuid.refresh(&RUNNING, &model.layout);
    assert!(osxsave(&cpuid) && apic(&cpuid));
    let kept = cpuid.entries().to_vec();

    let off = Runtime {
        osxsave: false,
        apic_enabled: false,
        mwait: Some(true),
        xcr0: 3,
        ..RUNNING
    };
    cpuid.refresh(&off, &model.layout);
    assert!(!osxsave(&cpuid) && !apic(&cpuid));
    assert_ne!(cpuid.cpuid(1, 0)[2] & Feature::MWAIT.mask(), 0);
    assert_eq!(cpuid.cpuid(0xd, 0)[1], 576);

    let off = Runtime { mwait: None, ..off };
    let mut without_mwait = cpuid.entries().to_vec();
    assert_eq!(
        cpuid.replace(kept.clone(), true, &off, &model.layout),
        Err(Refused),
        "MWAIT was set by a quirk that is back on"
    );
    for entry in &mut without_mwait {
        if entry.function == 1 {
            entry.ecx &= !Feature::MWAIT.mask();
        }
    }
    assert_eq!(
        cpuid.replace(without_mwait, false, &off, &model.layout),
        Ok(())
    );
    assert_eq!(
        cpuid.replace(kept.clone(), true, &off, &model.layout),
        Ok(())
    );

    for (leaf, change) in [(7, 1), (0x8000_0008, 1), (0x8000_0002, 1)] {
        let mut changed = kept.clone();
        for entry in changed.iter_mut().filter(|entry| entry.function == leaf) {
            entry.eax ^= change;
        }
        assert_eq!(
            cpuid.replace(changed, true, &off, &model.layout),
            Err(Refused)
        );
    }
    let mut shorter = kept.clone();
    shorter.pop();
    assert_eq!(
        cpuid.replace(shorter, true, &off, &model.layout),
        Err(Refused)
    );
    cpuid.refresh(&RUNNING, &model.layout);
    assert_eq!(cpuid.entries(), kept);
}

#[test]
fn linear_widths_that_paging_lacks_are_refused() {
    let model = model();
    for (bits, ok) in [(0, true), (48, true), (57, true), (47, false), (64, false)] {
        let entries = vec![CpuidEntry::new(0x8000_0008, 0, [36 | (bits << 8), 0, 0, 0])];
        let mut cpuid = GuestCpuid::new(Vec::new());
        let result = cpuid.replace(entries, false, &RUNNING, &model.layout);
        assert_eq!(result.is_ok(), ok, "{bits}");
        assert_eq!(cpuid.entries().is_empty(), !ok);
    }
}

#[test]
fn leaves_out_of_range_follow_the_vendor() {
    let intel = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
    let amd = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
    let entries = |max, [b, c, d]: [u32; 3]| {
        vec![
            CpuidEntry::new(0, 0, [max, b, c, d]),
            CpuidEntry::new(5, 0, [55, 0, 0, 0]),
            CpuidEntry::new(0xb, 0, [1, 2, 0, 77]),
            CpuidEntry::new(0xb, 1, [4, 8, 1, 77]),
            CpuidEntry::new(0x4000_0000, 0, [0x4000_0001, 0, 0, 0]),
            CpuidEntry::new(0x8000_0000, 0, [0x8000_0001, 0, 0, 0]),
        ]
    };
    let on_intel = GuestCpuid::new(entries(5, intel));
    let on_amd = GuestCpuid::new(entries(5, amd));
    for leaf in [
        6,
        0x1234,
        0x4000_0002,
        0x4000_0100,
        0x5000_0000,
        0x8000_0002,
        0xc000_0000,
        0xffff_ffff,
    ] {
        assert_eq!(on_intel.cpuid(leaf, 0), [55, 0, 0, 0], "{leaf:#x}");
        assert_eq!(on_amd.cpuid(leaf, 0), [0; 4], "{leaf:#x}");
    }
    // In range without a row: nothing.
    for leaf in [3, 0x4000_0001, 0x8000_0001] {
        assert_eq!(on_intel.cpuid(leaf, 0), [0; 4], "{leaf:#x}");
    }
    // An undefined subleaf of a topology leaf, asked for or redirected to.
    let topology = GuestCpuid::new(entries(0xb, intel));
    assert_eq!(topology.cpuid(0xb, 9), [0, 0, 9, 77]);
    assert_eq!(topology.cpuid(0x99, 0x1_02), [0, 0, 2, 77]);
    assert_eq!(topology.cpuid(0x99, 1), [4, 8, 1, 77]);
    assert_eq!(GuestCpuid::new(Vec::new()).cpuid(0, 0), [0; 4]);
}

#[test]
fn an_entry_without_index_answers_every_subleaf() {
    let mut entry = CpuidEntry::new(4, 0, [1, 2, 3, 4]);
    entry.flags = 0;
    let cpuid = GuestCpuid::new(vec![entry]);
    assert_eq!(cpuid.cpuid(4, 77), [1, 2, 3, 4]);
}

#[test]
fn facts_follow_from_the_table() {
    let model = model();
    let none = GuestFeatures::derive(&[], &model);
    assert_eq!(none.features, {
        let mut features = Features::default();
        features.set(Feature::GBPAGES, true);
        features
    });
    assert_eq!(none.physical_bits, 36);
    assert!(none.is_legal_gpa((1 << 36) - 1) && !none.is_legal_gpa(1 << 36));
    assert_eq!(none.xcr0.value(), 0);
    assert_eq!(none.msr_linear_bits, 48);

    let full = GuestFeatures::derive(&default_table(), &model);
    assert_eq!(full.features, model.features);
    assert_eq!(full.physical_bits, 39);
    assert_eq!(full.xcr0.value(), 7);
    assert_eq!(full.efer_allowed.value(), 0xd01);
    assert_eq!(full.efer_supported.value(), 0xd01);

    // What the host lacks stays out, whatever user space claims; MWAIT may be claimed.
    let claim = [
        CpuidEntry::new(1, 0, [u32::MAX; 4]),
        CpuidEntry::new(0xd, 0, [u32::MAX; 4]),
        CpuidEntry::new(0x8000_0000, 0, [u32::MAX, 0, 0, 0]),
        CpuidEntry::new(0x8000_0008, 0, [64, 0, 0, 0]),
    ];
    let claimed = GuestFeatures::derive(&claim, &model);
    assert!(!claimed.has(Feature::VMX) && claimed.has(Feature::MWAIT));
    assert_eq!(claimed.xcr0.value(), 7);
    assert_eq!(claimed.reserved_gpa, 0);
}

#[test]
fn paravirtual_features_are_found_wherever_they_lie() {
    let sign = |base| CpuidEntry::new(base, 0, [base | 1, 0x4b4d_564b, 0x564b_4d56, 0x0000_004d]);
    let entries = [
        CpuidEntry::new(0x4000_0000, 0, [0x4000_0005, 1, 2, 3]),
        CpuidEntry::new(0x4000_0001, 0, [0x1111, 0, 0, 0]),
        sign(0x4000_0100),
        CpuidEntry::new(0x4000_0101, 0, [0x2222, 0, 0, 0]),
    ];
    let derived = GuestFeatures::derive(&entries, &model());
    assert_eq!(derived.kvm_features, 0x2222);
    assert_eq!(GuestFeatures::derive(&[], &model()).kvm_features, 0);
}
