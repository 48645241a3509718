// SPDX-License-Identifier: GPL-2.0

//! MSRs: lists, values, and what is kept.

use super::host::{
    model,
    supported,
    Host, //
};
use crate::x86::{
    control_regs::rules::GpFault,
    cpuid::{
        fill,
        CpuidEntry,
        Feature,
        GuestFeatures,
        Model,
        Supported, //
    },
    guest_msr::{
        Access,
        GuestMsrs,
        MsrError,
        MAX_BANKS,
        SUPPORTED_MCG_CAP, //
    },
    msr_index::{
        self,
        feature_msrs,
        is_forgiven,
        is_immutable,
        saved, //
    },
    msr_value, //
};

/// Returns the features of a guest with everything that is supported.
fn features() -> GuestFeatures {
    let mut entries = [CpuidEntry::default(); 64];
    let len = fill(&Host::default(), &model(), &mut entries).expect("64 rows are enough");
    GuestFeatures::derive(entries.get(..len).expect("the rows are there"), &model())
}

/// Returns an access by user space, or by the guest.
fn access(features: &GuestFeatures, from_user: bool) -> Access<'_> {
    Access {
        features,
        from_user,
        platform_info_readable: true,
        misc_enable_mwait: false,
    }
}

const INVALID: Result<(), MsrError> = Err(MsrError::Invalid);
const UNKNOWN: Result<(), MsrError> = Err(MsrError::Unknown);

/// As hwcr_msr_test does.
#[test]
fn hwcr_keeps_two_bits_and_drops_three() {
    let features = features();
    for from_user in [true, false] {
        let access = access(&features, from_user);
        let mut msrs = GuestMsrs::new(0, false);
        for bit in 0..64 {
            let value = 1u64 << bit;
            let kept = value & ((1 << 18) | (1 << 24));
            let legal = kept != 0 || matches!(bit, 3 | 6 | 8);
            let result = msrs.write(msr_index::HWCR, value, &access);
            assert_eq!(result, if legal { Ok(()) } else { INVALID }, "{bit}");
            assert_eq!(msrs.read(msr_index::HWCR, &access), Ok(kept));
            assert_eq!(msrs.write(msr_index::HWCR, 0, &access), Ok(()));
        }
    }
}

#[test]
fn reset_values() {
    let features = features();
    let user = access(&features, true);
    let msrs = GuestMsrs::new(0x15, false);
    for (index, value) in [
        (msr_index::PAT, 0x0007_0406_0007_0406),
        (msr_index::MISC_ENABLE, 0x1800),
        (msr_index::PLATFORM_INFO, 1 << 31),
        (msr_index::ARCH_CAPABILITIES, 0x15),
        (msr_index::UCODE_REV, 1 << 32),
        (msr_index::MTRR_CAP, 0x508),
        (msr_index::MTRR_DEF_TYPE, 0),
        (msr_index::MCG_CAP, 32),
        (msr_index::FEAT_CTL, 0),
    ] {
        assert_eq!(msrs.read(index, &user), Ok(value), "{index:#x}");
    }
    let zeroed = GuestMsrs::new(0x15, true);
    for index in feature_msrs(&model().features) {
        assert_eq!(zeroed.read(index, &user), Ok(0), "{index:#x}");
    }
    for index in feature_msrs(&model().features) {
        let most = GuestMsrs::feature_msr(index, 0x15, 0xab << 32);
        assert!(most.is_some(), "{index:#x}");
        assert_eq!(is_immutable(index), index != msr_index::UCODE_REV);
    }
    assert_eq!(GuestMsrs::feature_msr(msr_index::PAT, 0, 0), None);
}

#[test]
fn lists_follow_the_features() {
    let features = model().features;
    let list = saved(&features).collect::<Vec<_>>();
    let mut unique = list.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), list.len());
    assert!(u32::try_from(list.len()).is_ok_and(|len| len <= msr_index::MAX_ACCESSES));
    assert!(list.contains(&msr_index::TSC_AUX) && list.contains(&0x20f));
    assert!(!list.contains(&msr_index::SPEC_CTRL));
    assert!(!list.contains(&msr_index::EFER) && !list.contains(&msr_index::APIC_BASE));

    let least = Model::new(&Host::default(), Supported::default()).features;
    assert!(!saved(&least).any(|index| index == msr_index::TSC_AUX));
    assert_eq!(
        feature_msrs(&least).collect::<Vec<_>>(),
        [msr_index::UCODE_REV, msr_index::PLATFORM_INFO]
    );

    assert!(is_forgiven(msr_index::TSC_AUX, 0, &features));
    assert!(!is_forgiven(msr_index::TSC_AUX, 1, &features));
    assert!(!is_forgiven(msr_index::SPEC_CTRL, 0, &features));
    assert!(!is_forgiven(0x1234, 0, &features));
}

/// Every MSR of the list that this module's storage holds can be read and written back.
#[test]
fn what_is_listed_can_be_restored() {
    let features = features();
    let user = access(&features, true);
    let mut msrs = GuestMsrs::new(0x15, false);
    for index in saved(&model().features) {
        match msrs.read(index, &user) {
            Ok(value) => {
                let written = msrs.write(index, value, &user);
                let forgiven = is_forgiven(index, value, &model().features);
                assert!(
                    written == Ok(()) || (written == UNKNOWN && forgiven),
                    "{index:#x}"
                );
            }
            Err(error) => assert_eq!(error, MsrError::Unknown, "{index:#x}"),
        }
    }
}

#[test]
fn parties_have_different_rights() {
    let features = features();
    let (user, guest) = (access(&features, true), access(&features, false));
    let mut msrs = GuestMsrs::new(0, false);

    assert_eq!(msrs.write(msr_index::UCODE_REV, 7, &guest), Ok(()));
    assert_eq!(msrs.read(msr_index::UCODE_REV, &guest), Ok(1 << 32));
    assert_eq!(msrs.write(msr_index::UCODE_REV, 7, &user), Ok(()));
    assert_eq!(msrs.read(msr_index::UCODE_REV, &guest), Ok(7));

    assert_eq!(msrs.write(msr_index::PLATFORM_INFO, 0, &guest), INVALID);
    assert_eq!(msrs.write(msr_index::ARCH_CAPABILITIES, 0, &guest), UNKNOWN);
    assert_eq!(msrs.write(msr_index::ARCH_CAPABILITIES, 3, &user), Ok(()));
    assert_eq!(msrs.read(msr_index::ARCH_CAPABILITIES, &guest), Ok(3));
    assert_eq!(msrs.write(msr_index::SMI_COUNT, 1, &guest), INVALID);

    let hidden = Access {
        platform_info_readable: false,
        ..guest
    };
    assert_eq!(
        msrs.read(msr_index::PLATFORM_INFO, &hidden),
        Err(MsrError::Invalid)
    );

    // FEAT_CTL can be locked once.
    assert_eq!(msrs.write(msr_index::FEAT_CTL, 4, &guest), INVALID);
    assert_eq!(msrs.write(msr_index::FEAT_CTL, 1, &guest), Ok(()));
    assert_eq!(msrs.write(msr_index::FEAT_CTL, 1, &guest), INVALID);
    assert_eq!(msrs.write(msr_index::FEAT_CTL, 0, &user), Ok(()));

    for index in [msr_index::XFD, msr_index::XFD_ERR] {
        assert_eq!(msrs.read(index, &guest), Err(MsrError::Invalid));
        assert_eq!(msrs.read(index, &user), Ok(0));
        assert_eq!(msrs.write(index, 1, &user), INVALID);
    }
    assert_eq!(msrs.read(msr_index::XSS, &user), Ok(0));
    assert_eq!(msrs.read(msr_index::XSS, &guest), Err(MsrError::Invalid));
    assert_eq!(msrs.write(msr_index::XSS, 0, &guest), UNKNOWN);

    // Local machine checks: where MCG_CAP has them, a guest may enable them in FEAT_CTL.
    const LMCE: u64 = 1 << 20;
    assert_eq!(
        msrs.read(msr_index::MCG_EXT_CTL, &guest),
        Err(MsrError::Invalid)
    );
    assert_eq!(msrs.write(msr_index::FEAT_CTL, LMCE, &guest), INVALID);
    assert_eq!(msrs.machine_check_mut().set_up((1 << 27) | 1), Ok(()));
    assert_eq!(msrs.write(msr_index::FEAT_CTL, LMCE | 1, &guest), Ok(()));
    assert_eq!(msrs.write(msr_index::MCG_EXT_CTL, 2, &guest), INVALID);
    assert_eq!(msrs.write(msr_index::MCG_EXT_CTL, 1, &guest), Ok(()));
    assert_eq!(msrs.read(msr_index::MCG_EXT_CTL, &guest), Ok(1));

    for (index, value) in [
        (msr_index::UMWAIT_CONTROL, 1),
        (msr_index::SGX_KEY_HASH3, 5),
    ] {
        assert_eq!(msrs.read(index, &guest), Err(MsrError::Invalid));
        assert_eq!(msrs.write(index, value, &guest), INVALID);
        assert_eq!(msrs.write(index, value, &user), Ok(()));
        assert_eq!(msrs.read(index, &user), Ok(value));
    }
    assert_eq!(msrs.write(msr_index::UMWAIT_CONTROL, 2, &user), INVALID);
}

#[test]
fn misc_enable_and_cpuid_faulting() {
    let features = features();
    let guest = access(&features, false);
    let mut msrs = GuestMsrs::new(0, false);
    assert_eq!(msrs.write(msr_index::MISC_ENABLE, 0x1801, &guest), Ok(()));
    assert_eq!(msrs.write(msr_index::MISC_ENABLE, 1, &guest), INVALID);
    assert_eq!(msrs.write(msr_index::MISC_ENABLE, 0x1881, &guest), Ok(()));
    assert_eq!(msrs.read(msr_index::MISC_ENABLE, &guest), Ok(0x1801));
    let mwait = 0x1800 | (1 << 18);
    assert_eq!(msrs.write(msr_index::MISC_ENABLE, mwait, &guest), Ok(()));
    assert!(msrs.has_mwait());

    let bare = GuestFeatures::derive(&[], &model());
    let strict = Access {
        features: &bare,
        misc_enable_mwait: true,
        ..guest
    };
    assert_eq!(msrs.write(msr_index::MISC_ENABLE, 0x1800, &strict), INVALID);

    let index = msr_index::MISC_FEATURES_ENABLES;
    assert_eq!(msrs.write(index, 1, &guest), Ok(()));
    assert!(msrs.cpuid_faults());
    assert_eq!(msrs.write(index, 2, &guest), INVALID);
    let mut msrs = GuestMsrs::new(0, true);
    assert_eq!(msrs.write(index, 1, &guest), INVALID);
    assert_eq!(msrs.write(index, 0, &guest), Ok(()));
}

#[test]
fn pat_and_mtrrs() {
    let features = features();
    let guest = access(&features, false);
    let mut msrs = GuestMsrs::new(0, false);
    for kind in 0..=255u8 {
        let value = u64::from_le_bytes([kind; 8]);
        let pat = matches!(kind, 0 | 1 | 4..=7);
        assert_eq!(msr_value::is_valid_pat(value), pat, "{kind:#x}");
        assert_eq!(msrs.write(msr_index::PAT, value, &guest).is_ok(), pat);
        let mtrr = matches!(kind, 0 | 1 | 4..=6);
        let fixed = msrs.write(msr_index::MTRR_FIX_4K + 7, value, &guest);
        assert_eq!(fixed.is_ok(), mtrr, "{kind:#x}");
    }
    assert_eq!(msrs.pat(), 0x0707_0707_0707_0707);

    for (index, value, result) in [
        (msr_index::MTRR_DEF_TYPE, 0xc06, Ok(())),
        (msr_index::MTRR_DEF_TYPE, 0xc02, INVALID),
        (msr_index::MTRR_DEF_TYPE, 0x1000, INVALID),
        (0x200, 0xf_f000_0006, Ok(())),
        (0x200, 0x106, INVALID),
        (0x20e, 1 << 39, INVALID),
        (0x20f, 0x7f_ffff_f800, Ok(())),
        (0x20f, 0x400, INVALID),
        (0x210, 0, INVALID),
        (0x251, 0, INVALID),
        (0x26f, 0, Ok(())),
        (msr_index::MTRR_CAP, 0x508, UNKNOWN),
    ] {
        assert_eq!(msrs.write(index, value, &guest), result, "{index:#x}");
        if result.is_ok() {
            assert_eq!(msrs.read(index, &guest), Ok(value), "{index:#x}");
        }
    }
    assert_eq!(msrs.read(0x251, &guest), Err(MsrError::Invalid));
}

#[test]
fn machine_check_banks() {
    let features = features();
    let (user, guest) = (access(&features, true), access(&features, false));
    let mut msrs = GuestMsrs::new(0, false);
    assert_eq!(
        msrs.read(msr_index::MCG_CTL, &guest),
        Err(MsrError::Invalid)
    );
    assert_eq!(msrs.read(msr_index::MCG_CTL, &user), Ok(0));

    let cap = SUPPORTED_MCG_CAP | 10;
    for bad in [0, u64::from(MAX_BANKS) + 1, cap | (1 << 9), cap | (1 << 40)] {
        assert_eq!(msrs.machine_check_mut().set_up(bad), INVALID);
    }
    assert_eq!(msrs.machine_check_mut().set_up(cap), Ok(()));
    for (index, value) in [
        (msr_index::MCG_CAP, Ok(cap)),
        (msr_index::MCG_CTL, Ok(u64::MAX)),
        (0x400, Ok(u64::MAX)),
        (0x401, Ok(0)),
        (0x424, Ok(u64::MAX)),
        (0x427, Ok(0)),
        (0x428, Err(MsrError::Invalid)),
        (0x47f, Err(MsrError::Invalid)),
        (0x480, Err(MsrError::Unknown)),
    ] {
        assert_eq!(msrs.read(index, &guest), value, "{index:#x}");
    }
    for (index, value, by_user, by_guest) in [
        (0x400, 0, true, true),
        (0x400, u64::MAX & !(1 << 10), true, true),
        (0x400, 5, false, false),
        (0x401, 5, true, false),
        (0x401, 0, true, true),
        (0x402, 5, true, true),
        (msr_index::MCG_CTL, 5, false, false),
        (msr_index::MCG_CTL, 0, true, true),
        (msr_index::MC0_CTL2, 0, true, true),
        (msr_index::MC0_CTL2, 1, true, true),
        (msr_index::MC0_CTL2, 1 << 31, false, false),
        (msr_index::MCG_STATUS, 5, true, true),
        (msr_index::MCG_CAP, cap, false, false),
    ] {
        let name = format!("{index:#x} = {value:#x}");
        assert_eq!(msrs.write(index, value, &user).is_ok(), by_user, "{name}");
        assert_eq!(msrs.write(index, value, &guest).is_ok(), by_guest, "{name}");
    }

    // Without interrupts for corrected errors, only the client may write, and only what is there.
    let mut msrs = GuestMsrs::new(0, false);
    let cap = cap & !(1 << 10);
    assert_eq!(msrs.machine_check_mut().set_up(cap), Ok(()));
    for (value, by_user) in [(0, true), (1, false)] {
        let index = msr_index::MC0_CTL2;
        assert_eq!(msrs.write(index, value, &user).is_ok(), by_user, "{value}");
        assert!(msrs.write(index, value, &guest).is_err(), "{value}");
    }
}

#[test]
fn legacy_msrs_are_constants() {
    let features = features();
    let guest = access(&features, false);
    let mut msrs = GuestMsrs::new(0, false);
    let before = msrs.clone();
    for (index, read, write_5) in [
        (0x0, Ok(0), UNKNOWN),
        (0x17, Ok(0), UNKNOWN),
        (0x2c, Ok(1 << 24), UNKNOWN),
        (0x79, Err(MsrError::Unknown), Ok(())),
        (0xcd, Ok(3), UNKNOWN),
        (0x187, Ok(0), Ok(())),
        (0x198, Ok(1000 | (4 << 40)), UNKNOWN),
        (0x606, Ok(0), UNKNOWN),
        (0xc001_0007, Ok(0), Ok(())),
        (0xc001_0008, Err(MsrError::Unknown), UNKNOWN),
        (0xc001_0058, Ok(0), INVALID),
        (0x1234, Err(MsrError::Unknown), UNKNOWN),
        (u32::MAX, Err(MsrError::Unknown), UNKNOWN),
    ] {
        assert_eq!(msrs.read(index, &guest), read, "{index:#x}");
        assert_eq!(msrs.write(index, 5, &guest), write_5, "{index:#x}");
    }
    assert_eq!(msrs, before);
}

#[test]
fn values_of_msrs_that_the_cpu_holds() {
    let features = features();
    let canonical = 0x0000_7fff_ffff_ffff;
    assert!(msr_value::is_canonical(canonical, 48));
    assert!(msr_value::is_canonical(!canonical, 48));
    assert!(!msr_value::is_canonical(canonical + 1, 48));
    assert!(msr_value::is_canonical(canonical + 1, 57));
    assert_eq!(msr_value::address(canonical, &features), Ok(canonical));
    assert_eq!(msr_value::address(canonical + 1, &features), Err(GpFault));
    assert_eq!(
        msr_value::sysenter_address(canonical + 1, &features),
        !canonical
    );
    assert_eq!(msr_value::canonical(5, 64), 5);

    assert_eq!(msr_value::tsc_aux(5), Ok(5));
    assert_eq!(msr_value::tsc_aux(1 << 32), Err(GpFault));
    let bare = GuestFeatures::derive(&[], &model());
    assert!(msr_value::has_tsc_aux(&features, false));
    assert!(!msr_value::has_tsc_aux(&bare, false) && msr_value::has_tsc_aux(&bare, true));
    assert!(!supported().spec_ctrl && !bare.has(Feature::RDTSCP));

    assert_eq!(msr_value::debugctl(3), Ok(0));
    assert_eq!(msr_value::debugctl(4), Err(GpFault));
}
