// SPDX-License-Identifier: GPL-2.0

//! What all VMs share: the CPU's capabilities, the VPIDs, the host's constant state, and what guests can
//! be told in CPUID. Made once at load.

use crate::{
    linux::{
        cpu_call,
        debugfs,
        fetch,
        guest,
        host::{
            self,
            HostConstants, //
        },
        parameter::{
            self,
            Parameters, //
        },
        speculation::{
            self,
            Mitigations, //
        }, //
    },
    vmx::{
        capability::{
            Capabilities,
            Refusal,
            Wanted, //
        },
        controls::secondary,
        msr_bitmap::MsrBitmap,
        vpid::VpidPool, //
    },
    x86::{
        control_regs::Efer,
        cpuid::{
            Feature,
            HostCpuid,
            Model,
            Supported, //
        }, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What all VMs share.
pub(crate) struct Hypervisor {
    /// What this CPU's VMX offers.
    pub(crate) capabilities: Capabilities,
    /// The host state that never changes.
    pub(crate) host: HostConstants,
    /// Which MSRs guests access directly.
    pub(crate) msr_bitmap: MsrBitmap,
    /// The VPIDs of all vCPUs.
    pub(crate) vpids: Arc<VpidPool>,
    /// What guests can be told in CPUID.
    pub(crate) model: Model,
    /// Width of host-physical addresses in bits.
    pub(crate) physical_bits: u8,
    /// The CPU snoops its own caches for accesses of all types of memory.
    pub(crate) self_snoop: bool,
    /// The host runs in a virtual machine itself.
    pub(crate) virtualized: bool,
    /// The module's folder in debugfs.
    pub(crate) debugfs: Arc<debugfs::Root>,
    /// IA32_ARCH_CAPABILITIES of guests: what this host can promise.
    pub(crate) arch_capabilities: u64,
    /// The host's perf drives performance counters.
    pub(crate) perf_counts: bool,
    /// The threads that bring in pages for vCPUs which do not wait for them.
    pub(crate) fetches: fetch::Queue,
    _mitigations: Mitigations,
}

/// The CPU that this runs on, as [`Model`] asks about it.
pub(crate) struct ThisCpu;

impl HostCpuid for ThisCpu {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        cpu_call::cpuid(leaf, subleaf)
    }

    fn kernel_word(&self, index: usize) -> u32 {
        cpu_call::feature_word(index)
    }
}

/// Tells the log why the module does not load, and returns the errno.
fn refuse(refusal: &Refusal) -> Error {
    match refusal {
        Refusal::DisabledByFirmware => {
            pr_err!("VMX is disabled by the firmware (IA32_FEATURE_CONTROL)\n");
            EOPNOTSUPP
        }
        Refusal::Control(missing) => {
            pr_err!("this CPU lacks {}\n", missing);
            EOPNOTSUPP
        }
        Refusal::Vmcs(why) => {
            pr_err!("the VMCS of this CPU cannot be used: {}\n", why);
            EOPNOTSUPP
        }
    }
}

impl Hypervisor {
    /// Looks at the CPU, and says in the log what is found and what is off.
    ///
    /// `kvm_features` are the paravirtual features that guests can be told of (KVM_FEATURE_*).
    pub(crate) fn new(kvm_features: u32) -> Result<Arc<Self>> {
        if !cpu_call::has_vmx() {
            pr_err!("this CPU has no VMX\n");
            return Err(EOPNOTSUPP);
        }
        let wanted = parameter::wanted();
        // SAFETY: The CPU has VMX.
        let capabilities = unsafe {
            Capabilities::probe(Wanted {
                ept: wanted.ept,
                unrestricted_guest: wanted.unrestricted_guest,
                vpid: wanted.vpid,
                vnmi: wanted.vnmi,
                ept_ad: wanted.eptad,
                pml: wanted.pml,
                dirty_bits: wanted.dirty_bits,
                flexpriority: wanted.flexpriority,
                preemption_timer: wanted.preemption_timer,
                apicv: wanted.apicv,
            })
        }
        .map_err(|refusal| refuse(&refusal))?;
        let host = host::constants();
        if !capabilities.ept() && !Efer::new(host.efer).contains(Efer::NX) {
            pr_err!("without EPT, the host must have no-execute pages\n");
            return Err(EOPNOTSUPP);
        }

        parameter::report(&Parameters {
            ept: capabilities.ept(),
            vpid: capabilities.vpid(),
            vnmi: capabilities.virtual_nmis(),
            flexpriority: capabilities.flexpriority(),
            unrestricted_guest: capabilities.unrestricted_guest(),
            eptad: capabilities.ept_ad(),
            pml: capabilities.pml(),
            dirty_bits: capabilities.dirty_bits(),
            preemption_timer: capabilities.preemption_timer().is_some(),
            apicv: capabilities.apicv(),
        });

        let mitigations = Mitigations::new(capabilities.ept())?;
        let [widths, ..] = cpu_call::cpuid(0x8000_0008, 0);
        // CAST: The width is the low byte.
        let physical_bits = widths as u8;
        let supported = Supported {
            host_xcr0: host.xcr0,
            ept: capabilities.ept(),
            ept_five_levels: false,
            host_physical_bits: physical_bits,
            x2apic: true,
            tsc_deadline: true,
            tsc_adjust: true,
            kvm_features,
            rdtscp: capabilities.has_secondary(secondary::ENABLE_RDTSCP),
            invpcid: capabilities.has_secondary(secondary::ENABLE_INVPCID),
            xsaves: capabilities.has_secondary(secondary::ENABLE_XSAVES),
            pku: cpu_call::has(Feature::OSPKE),
            waitpkg: capabilities.has_secondary(secondary::ENABLE_USER_WAIT_PAUSE),
            spec_ctrl: true,
            amd_speculation: speculation::features(),
            flush_l1d: true,
            arch_capabilities: true,
            ..Supported::default()
        };
        let hypervisor = Self {
            capabilities,
            host,
            msr_bitmap: MsrBitmap::new()?,
            vpids: Arc::pin_init(VpidPool::new(), GFP_KERNEL)?,
            model: Model::new(&ThisCpu, supported),
            physical_bits,
            self_snoop: cpu_call::has(Feature::SELFSNOOP),
            virtualized: cpu_call::has(Feature::HYPERVISOR),
            debugfs: debugfs::Root::new(c"kvm-rs")?,
            arch_capabilities: speculation::arch_capabilities(),
            perf_counts: guest::perf_setup(),
            fetches: fetch::Queue::new(c"kvm_rs_fetch")?,
            _mitigations: mitigations,
        };
        hypervisor.describe();
        Ok(Arc::new(hypervisor, GFP_KERNEL)?)
    }

    /// Says in the log what is in use.
    fn describe(&self) {
        let on = |on: bool| if on { "on" } else { "off" };
        let ept = self.capabilities.ept_vpid();
        if self.capabilities.ept() {
            pr_info!(
                "EPT with pages of 4K{}{}, accessed and dirty bits {}; VPID {}\n",
                if ept.page_2m() { ", 2M" } else { "" },
                if ept.page_1g() { ", 1G" } else { "" },
                on(self.capabilities.ept_ad()),
                on(self.capabilities.vpid()),
            );
        } else {
            pr_info!(
                "EPT off: shadow tables, for guests without paging only; VPID {}\n",
                on(self.capabilities.vpid()),
            );
        }
        pr_info!(
            "unrestricted guest {}, FlexPriority {}, APICv {}, PML {}, VMX-preemption timer {}\n",
            on(self.capabilities.unrestricted_guest()),
            on(self.capabilities.flexpriority()),
            on(self.capabilities.apicv()),
            on(self.capabilities.pml()),
            on(self.capabilities.preemption_timer().is_some()),
        );
    }
}
