// SPDX-License-Identifier: GPL-2.0
/*
 * The state of a VM with one vCPU, saved and restored: see state.h.
 */
#include "state.h"

#define APIC_TMCCT	0x390
#define MSR_TSC		0x10
#define MSR_MTRR_PHYS	0x200
#define MSR_MTRR_FIX_64K 0x250
#define MSR_MTRR_FIX_16K 0x258
#define MSR_MTRR_FIX_4K	0x268
#define MSR_MTRR_DEF_TYPE 0x2ff

bool vm_enable_apic(struct vm *vm)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args[0] = 24 };

	if (!xioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP))
		return false;
	xioctl(vm->fd, KVM_ENABLE_CAP, &cap);
	return true;
}

static void add_msr(struct state *s, uint32_t index)
{
	unsigned int i;

	for (i = 0; i < s->msrs.header.nmsrs; i++)
		if (s->msrs.entries[i].index == index)
			return;
	if (i == STATE_MSRS)
		die("more than %u MSRs", i);
	s->msrs.entries[i].index = index;
	s->msrs.header.nmsrs++;
}

/* The MSRs that the device lists, and MTRRs, which kvm has and does not list. */
static void list_msrs(struct vm *vm, struct state *s)
{
	static struct {
		struct kvm_msr_list header;
		uint32_t indices[STATE_MSRS];
	} list;
	unsigned int i;

	/* It is the same for every VM. */
	if (!list.header.nmsrs) {
		list.header.nmsrs = STATE_MSRS;
		xioctl(vm->dev, KVM_GET_MSR_INDEX_LIST, &list);
	}
	s->msrs.header.nmsrs = list.header.nmsrs;
	for (i = 0; i < list.header.nmsrs; i++)
		s->msrs.entries[i].index = list.indices[i];
	for (i = 0; i < 16; i++)
		add_msr(s, MSR_MTRR_PHYS + i);
	add_msr(s, MSR_MTRR_FIX_64K);
	for (i = 0; i < 2; i++)
		add_msr(s, MSR_MTRR_FIX_16K + i);
	for (i = 0; i < 8; i++)
		add_msr(s, MSR_MTRR_FIX_4K + i);
	add_msr(s, MSR_MTRR_DEF_TYPE);
}

/* Reads the MSRs that are listed, and takes those from the list that cannot be. */
static unsigned int save_msrs(struct vcpu *vcpu, struct state *s)
{
	struct kvm_msr_entry *entries = s->msrs.entries;
	unsigned int done, unreadable = 0;

	while ((done = xioctl(vcpu->fd, KVM_GET_MSRS, &s->msrs)) < s->msrs.header.nmsrs) {
		printf("# MSR %#x cannot be read\n", entries[done].index);
		unreadable++;
		s->msrs.header.nmsrs--;
		memmove(entries + done, entries + done + 1,
			(s->msrs.header.nmsrs - done) * sizeof(entries[0]));
	}
	return unreadable;
}

unsigned int state_save(struct vcpu *vcpu, struct state *s, bool apic)
{
	unsigned int unreadable;
	int vm = vcpu->vm->fd;

	memset(s, 0, sizeof(*s));
	s->apic = apic;
	s->cpuid.header.nent = STATE_CPUID;
	xioctl(vcpu->fd, KVM_GET_CPUID2, &s->cpuid);
	/* First what other state may change: an APIC's timer, an interrupt on its way. */
	xioctl(vcpu->fd, KVM_GET_MP_STATE, &s->mp_state);
	if (apic)
		xioctl(vcpu->fd, KVM_GET_LAPIC, &s->lapic);
	xioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &s->events);
	xioctl(vcpu->fd, KVM_GET_REGS, &s->regs);
	s->xsave_size = xioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	if (s->xsave_size > sizeof(s->xsave))
		die("KVM_CAP_XSAVE2: %lu", s->xsave_size);
	if (s->xsave_size)
		xioctl(vcpu->fd, KVM_GET_XSAVE2, s->xsave);
	if (xioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_XCRS))
		xioctl(vcpu->fd, KVM_GET_XCRS, &s->xcrs);
	xioctl(vcpu->fd, KVM_GET_SREGS, &s->sregs);
	xioctl(vcpu->fd, KVM_GET_SREGS2, &s->sregs2);
	xioctl(vcpu->fd, KVM_GET_DEBUGREGS, &s->debugregs);
	list_msrs(vcpu->vm, s);
	unreadable = save_msrs(vcpu, s);
	s->tsc_khz = xioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	xioctl(vm, KVM_GET_CLOCK, &s->clock);
	return unreadable;
}

static unsigned int restore_msrs(struct vcpu *vcpu, const struct state *s)
{
	static struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entries[STATE_MSRS];
	} rest;
	unsigned int i, done, refused = 0;

	for (i = 0; i < s->msrs.header.nmsrs; i += done) {
		rest.header.nmsrs = s->msrs.header.nmsrs - i;
		memcpy(rest.entries, s->msrs.entries + i,
		       rest.header.nmsrs * sizeof(rest.entries[0]));
		done = xioctl(vcpu->fd, KVM_SET_MSRS, &rest);
		if (done == rest.header.nmsrs)
			break;
		if (rest.entries[done].data) {
			printf("# MSR %#x cannot be set to %#llx\n", rest.entries[done].index,
			       rest.entries[done].data);
			refused++;
		}
		done++;
	}
	return refused;
}

unsigned int state_restore(struct vcpu *vcpu, struct vm *vm, const struct state *s,
			   bool sregs2)
{
	struct kvm_clock_data clock = { .clock = s->clock.clock };
	unsigned int refused;

	xioctl(vm->fd, KVM_SET_CLOCK, &clock);
	vcpu_create(vcpu, vm, 0);
	xioctl(vcpu->fd, KVM_SET_CPUID2, &s->cpuid);
	xioctl(vcpu->fd, KVM_SET_TSC_KHZ, s->tsc_khz);
	if (sregs2)
		xioctl(vcpu->fd, KVM_SET_SREGS2, &s->sregs2);
	else
		xioctl(vcpu->fd, KVM_SET_SREGS, &s->sregs);
	if (s->apic)
		xioctl(vcpu->fd, KVM_SET_LAPIC, &s->lapic);
	refused = restore_msrs(vcpu, s);
	/* A guest that came from a CPU with XSAVE has XCR0 even if it cannot read it. */
	if (s->xcrs.nr_xcrs && xioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_XCRS))
		xioctl(vcpu->fd, KVM_SET_XCRS, &s->xcrs);
	if (s->xsave_size)
		xioctl(vcpu->fd, KVM_SET_XSAVE, s->xsave);
	xioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &s->events);
	xioctl(vcpu->fd, KVM_SET_MP_STATE, &s->mp_state);
	xioctl(vcpu->fd, KVM_SET_DEBUGREGS, &s->debugregs);
	xioctl(vcpu->fd, KVM_SET_REGS, &s->regs);
	return refused;
}

/* A segment that is not usable has no attributes; KVM loses them when it is set. */
static struct kvm_sregs2 without_attributes(const struct kvm_sregs2 *sregs2)
{
	struct kvm_sregs2 s = *sregs2;
	struct kvm_segment *segments[] = {
		&s.cs, &s.ds, &s.es, &s.fs, &s.gs, &s.ss, &s.tr, &s.ldt,
	};
	unsigned int i;

	for (i = 0; i < sizeof(segments) / sizeof(segments[0]); i++) {
		if (segments[i]->unusable)
			*segments[i] = (struct kvm_segment) {
				.selector = segments[i]->selector,
				.base = segments[i]->base,
				.limit = segments[i]->limit,
				.unusable = 1,
			};
	}
	return s;
}

bool state_same(const struct state *a, const struct state *b)
{
	struct kvm_sregs2 x = without_attributes(&a->sregs2), y = without_attributes(&b->sregs2);
	struct kvm_lapic_state lapic = b->lapic;
	bool same = true;
	unsigned int i;

#define SAME(what, x, y)						\
	do {								\
		if (memcmp((x), (y), sizeof(*(x)))) {			\
			printf("# " what " is not as before\n");	\
			same = false;					\
		}							\
	} while (0)
	memcpy(lapic.regs + APIC_TMCCT, a->lapic.regs + APIC_TMCCT, 4);
	SAME("KVM_GET_REGS", &a->regs, &b->regs);
	SAME("KVM_GET_SREGS2", &x, &y);
	SAME("KVM_GET_SREGS", &a->sregs.interrupt_bitmap, &b->sregs.interrupt_bitmap);
	SAME("KVM_GET_VCPU_EVENTS", &a->events, &b->events);
	SAME("KVM_GET_DEBUGREGS", &a->debugregs, &b->debugregs);
	SAME("KVM_GET_MP_STATE", &a->mp_state, &b->mp_state);
	SAME("KVM_GET_XCRS", &a->xcrs, &b->xcrs);
	SAME("KVM_GET_LAPIC", &a->lapic, &lapic);
	SAME("KVM_GET_CPUID2", &a->cpuid, &b->cpuid);
	SAME("KVM_GET_XSAVE2", &a->xsave, &b->xsave);
	SAME("KVM_GET_TSC_KHZ", &a->tsc_khz, &b->tsc_khz);
#undef SAME
	for (i = 0; i < a->msrs.header.nmsrs; i++) {
		const struct kvm_msr_entry *msr = &b->msrs.entries[i];
		uint64_t was = a->msrs.entries[i].data;

		if (msr->index == MSR_TSC ? msr->data < was : msr->data != was) {
			printf("# MSR %#x is %#llx, was %#lx\n", msr->index, msr->data, was);
			same = false;
		}
	}
	if (b->clock.clock < a->clock.clock) {
		printf("# KVM_GET_CLOCK is %llu, was %llu\n", b->clock.clock, a->clock.clock);
		same = false;
	}
	return same;
}
