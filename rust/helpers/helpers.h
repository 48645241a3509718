/* SPDX-License-Identifier: GPL-2.0 */
/*
 * C shims: macros and inline functions of the kernel that Rust cannot call, and the few pieces that
 * only C can express. Each is documented where it is defined; bindgen reads this header.
 */
#ifndef KVM_RS_HELPERS_H
#define KVM_RS_HELPERS_H

#include <linux/fs.h>
#include <linux/types.h>

struct file;
struct fpu_guest;
struct mutex;
struct perf_guest_switch_msr;
struct preempt_notifier;
struct preempt_ops;
struct vm_fault;
struct kvm_rs_guest_regs;
struct list_head;

/* clock.c */

/**
 * struct kvm_rs_clock_snapshot - The host's clocks at one moment
 * @base_ns:	Nanoseconds since boot, suspended time included, at the rate of the hardware
 * @real_ns:	Nanoseconds since 1970
 * @tsc:	The time-stamp counter; only about then, unless @tsc_based
 * @tsc_based:	The clocks run on the time-stamp counter
 */
struct kvm_rs_clock_snapshot {
	u64 base_ns;
	u64 real_ns;
	u64 tsc;
	bool tsc_based;
};

void kvm_rs_take_clock_snapshot(struct kvm_rs_clock_snapshot *out);
u64 kvm_rs_run_delay(void);

/* cpu.c */
void kvm_rs_preempt_disable(void);
void kvm_rs_preempt_enable(void);
unsigned long kvm_rs_irq_save(void);
void kvm_rs_irq_restore(unsigned long flags);
unsigned int kvm_rs_this_cpu(void);
void kvm_rs_smp_mb(void);
u64 kvm_rs_current_vmcs(void);
void kvm_rs_set_current_vmcs(u64 address);
void kvm_rs_active_vmcs_init(void);
void kvm_rs_active_vmcs_add(struct list_head *link);
void kvm_rs_active_vmcs_remove(struct list_head *link);
void kvm_rs_active_vmcs_for_each(void (*function)(struct list_head *link, void *data), void *data);
void kvm_rs_send_reschedule(unsigned int cpu);

/* POSTED_INTR_VECTOR, for bindgen, which cannot read its header. */
#define KVM_RS_POSTED_INTERRUPT_VECTOR 0xf2
void kvm_rs_send_posted_interrupt(unsigned int cpu);
void kvm_rs_kick_cpus_and_wait(const unsigned long *cpus);
bool kvm_rs_guest_work_pending(void);
int kvm_rs_handle_guest_work(void);
bool kvm_rs_signal_pending(void);
bool kvm_rs_single_task_running(void);
bool kvm_rs_may_poll(void);
bool kvm_rs_is_to_give_way(void);
bool kvm_rs_is_runnable(void);
struct pid *kvm_rs_current_pid(void);
struct pid *kvm_rs_current_pid_get(void);
void kvm_rs_pid_get(struct pid *pid);
void kvm_rs_pid_put(struct pid *pid);
bool kvm_rs_yield_to(struct pid *pid);
int kvm_rs_hotplug_register(const char *name, int (*online)(unsigned int cpu),
			    int (*offline)(unsigned int cpu));
void kvm_rs_hotplug_unregister(int state);
bool kvm_rs_system_is_going_down(void);
void kvm_rs_on_each_cpu(void (*function)(void *data));
unsigned int kvm_rs_online_cpus(void);
bool kvm_rs_cpu_has_vmx(void);
u32 kvm_rs_exits_to_disable(void);
u32 kvm_rs_feature_word(unsigned long index);
int kvm_rs_virt_get(void);
void kvm_rs_virt_put(void);
unsigned int kvm_rs_tsc_khz(void);
u64 kvm_rs_rdtsc(void);
void kvm_rs_machine_check(void);
void kvm_rs_load_debug_registers(const unsigned long address[4]);
void kvm_rs_load_debug_status(unsigned long dr6);
unsigned long kvm_rs_take_debug_registers(unsigned long address[4]);
void kvm_rs_cpuid(u32 leaf, u32 subleaf, u32 out[4]);

/* virt.c */
int kvm_rs_emergency_register(void (*callback)(void));
void kvm_rs_emergency_unregister(void);

/* host_state.c */

/**
 * struct kvm_rs_host_segments - Host segment state that VM exit does not restore by itself
 * @fs_base:	FS base of user space, for HOST_FS_BASE
 * @kernel_gs_base: GS base of user space, in IA32_KERNEL_GS_BASE while in the kernel
 * @ldt:	LDT selector
 * @fs:		FS selector; the VMCS takes it only without RPL and TI
 * @gs:		GS selector; likewise
 * @ds:		DS selector
 * @es:		ES selector
 */
struct kvm_rs_host_segments {
	unsigned long fs_base;
	unsigned long kernel_gs_base;
	u16 ldt;
	u16 fs;
	u16 gs;
	u16 ds;
	u16 es;
};

/**
 * struct kvm_rs_host_constants - Host state that is the same for every entry of this boot
 * @cr0:	CR0
 * @efer:	IA32_EFER
 * @pat:	IA32_PAT
 * @idt_base:	IDT
 * @sysenter_cs: IA32_SYSENTER_CS
 * @sysenter_eip: IA32_SYSENTER_EIP
 * @exit_rip:	Where the host goes on after a VM exit
 * @xcr0:	XCR0, 0 without XSAVE
 * @xss:	IA32_XSS, 0 without XSAVES
 * @xcr0_kept:	The XCR0 of guests for which neither is changed, 0 if there is none
 * @cs:		CS selector
 * @ss:		SS selector
 * @tr:		TR selector
 */
struct kvm_rs_host_constants {
	unsigned long cr0;
	u64 efer;
	u64 pat;
	unsigned long idt_base;
	u32 sysenter_cs;
	unsigned long sysenter_eip;
	unsigned long exit_rip;
	u64 xcr0;
	u64 xss;
	u64 xcr0_kept;
	u16 cs;
	u16 ss;
	u16 tr;
};

/**
 * struct kvm_rs_host_percpu - Host state that differs from CPU to CPU
 * @tr_base:	TSS
 * @gdt_base:	GDT
 * @gs_base:	Kernel GS base, that is per-CPU data
 * @sysenter_esp: IA32_SYSENTER_ESP
 */
struct kvm_rs_host_percpu {
	unsigned long tr_base;
	unsigned long gdt_base;
	unsigned long gs_base;
	unsigned long sysenter_esp;
};

void kvm_rs_host_constants(struct kvm_rs_host_constants *host);
void kvm_rs_host_percpu(struct kvm_rs_host_percpu *host);
void kvm_rs_save_host_segments(struct kvm_rs_host_segments *segments);
void kvm_rs_restore_host_segments(const struct kvm_rs_host_segments *segments);
unsigned long kvm_rs_current_cr3(void);
unsigned long kvm_rs_current_cr4(void);

/**
 * struct kvm_rs_xstate - The components that XSAVE and XSAVES handle
 * @xcr0:	XCR0
 * @xss:	IA32_XSS
 */
struct kvm_rs_xstate {
	u64 xcr0;
	u64 xss;
};

void kvm_rs_load_xstate(const struct kvm_rs_xstate *from, const struct kvm_rs_xstate *to);
u32 kvm_rs_swap_pkru(u32 pkru);

/* entry.c */
unsigned long kvm_rs_guest_enter(struct kvm_rs_guest_regs *regs, unsigned long launched);
void kvm_rs_handle_external_interrupt(unsigned int vector);
bool kvm_rs_perf_setup(void);
const struct perf_guest_switch_msr *kvm_rs_perf_msrs(unsigned int *count);
bool kvm_rs_guest_timing_enter(void);
void kvm_rs_guest_timing_exit(void);

/* fpu.c */
struct fpu_guest *kvm_rs_fpu_alloc(void);
void kvm_rs_fpu_free(struct fpu_guest *fpu);
void kvm_rs_fpu_load_guest(struct fpu_guest *fpu);
void kvm_rs_fpu_load_host(struct fpu_guest *fpu);
void kvm_rs_fpu_sync(void);
void kvm_rs_fpu_read_vector(unsigned int index, void *data);
void kvm_rs_fpu_write_vector(unsigned int index, const void *data, bool wide);
void kvm_rs_fpu_get(struct fpu_guest *fpu, void *fxsave);
void kvm_rs_fpu_set(struct fpu_guest *fpu, const void *fxsave);
unsigned int kvm_rs_fpu_uabi_size(struct fpu_guest *fpu);
void kvm_rs_fpu_to_uabi(struct fpu_guest *fpu, void *buffer, unsigned int size, u64 xfeatures,
			u32 pkru);
int kvm_rs_fpu_from_uabi(struct fpu_guest *fpu, const void *buffer, u64 xcr0, u32 *pkru);

/* speculation.c */
int kvm_rs_speculation_setup(bool ept);
void kvm_rs_speculation_cleanup(void);
void kvm_rs_host_data_touched(void);
void kvm_rs_vcpu_arrives(u64 vcpu);
u64 kvm_rs_arch_capabilities(void);
u32 kvm_rs_speculation_features(void);
bool kvm_rs_accepts_spec_ctrl(u64 value);
bool kvm_rs_has_ibpb(void);
void kvm_rs_ibpb(void);
bool kvm_rs_has_flush_l1d(void);
void kvm_rs_flush_l1d(void);
u64 kvm_rs_microcode_revision(void);

/* task.c */
void kvm_rs_preempt_notifier_init(struct preempt_notifier *notifier, struct preempt_ops *ops);
void *kvm_rs_page_alloc(void);
void kvm_rs_page_free(void *page);
unsigned long kvm_rs_virt_to_phys(const void *address);
void kvm_rs_note_paging_without_ept(void);
int kvm_rs_fault_install(struct vm_fault *fault, void *address);
unsigned long kvm_rs_fault_pgoff(const struct vm_fault *fault);
bool kvm_rs_area_is_shared_data(const struct vm_area_struct *area, unsigned long *first,
				unsigned long *count);
struct file *kvm_rs_fault_file(const struct vm_fault *fault);
int kvm_rs_anon_inode_getfd(const char *name, const struct file_operations *operations, void *data);
struct file *kvm_rs_anon_inode_getfile(const char *name, const struct file_operations *operations,
				       void *data);
int kvm_rs_anon_inode_getfd_pread(const char *name, const struct file_operations *operations,
				  void *data);
int kvm_rs_mutex_lock_killable(struct mutex *mutex);
void kvm_rs_mutex_unlock(struct mutex *mutex);
void kvm_rs_mutex_destroy(struct mutex *mutex);
void kvm_rs_signals_block(u64 mask);
void kvm_rs_signals_unblock(void);

/* parameter.c */

/**
 * struct kvm_rs_parameters - The module's parameters
 * @ept:	Translate guest-physical addresses by EPT
 * @vpid:	Tag translations with VPIDs
 * @vnmi:	Have the CPU track whether the guest blocks NMIs
 * @flexpriority: Virtualise the task-priority register in hardware
 * @unrestricted_guest: Run real mode and nonpaged guests in hardware
 * @eptad:	Use accessed and dirty bits of EPT entries
 * @pml:	Log dirty pages in hardware
 * @dirty_bits:	Find dirty pages by dirty bits, without a log of hardware
 * @preemption_timer: Use the VMX-preemption timer for local APICs' timers
 * @apicv:	Virtualise local APICs in hardware, with posted interrupts
 *
 * What was asked for until the module has looked at the CPU, and what is in use from then on.
 */
struct kvm_rs_parameters {
	bool ept;
	bool vpid;
	bool vnmi;
	bool flexpriority;
	bool unrestricted_guest;
	bool eptad;
	bool pml;
	bool dirty_bits;
	bool preemption_timer;
	bool apicv;
};

extern struct kvm_rs_parameters kvm_rs_parameters;
bool kvm_rs_wants_vmcs_dump(void);
bool kvm_rs_eager_page_split(void);
bool kvm_rs_nx_huge_pages(void);
unsigned int kvm_rs_nx_recovery(unsigned int *period_ms);
bool kvm_rs_may_reboot(void);

/**
 * struct kvm_rs_halt_polling - How long halted vCPUs poll
 * @ns:		Longest time, in nanoseconds
 * @grow:	Factor by which the time grows
 * @grow_start:	The least time, in nanoseconds
 * @shrink:	Divisor by which it shrinks
 */
struct kvm_rs_halt_polling {
	unsigned int ns;
	unsigned int grow;
	unsigned int grow_start;
	unsigned int shrink;
};

void kvm_rs_halt_polling(struct kvm_rs_halt_polling *polling);

#endif
