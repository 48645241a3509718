// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that sums up its own state, made and run: see checksum.h.
 */
#include "checksum_guest.h"

#define APIC_LVT0	0x350
#define MSR_KVM_SYSTEM_TIME_NEW	0x4b564d01
#define MTRR_PHYSBASE7	0x20e
#define MTRR_FIX64K	0x250

const struct varying_msr checksum_msrs[N_MSRS] = {
	/* What the client's side knows by their places: FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX. */
	{ 0xc0000100, 0x1000, DATA_GPA },
	{ 0xc0000101, 0x7fffffffffff, 0 },
	{ 0xc0000102, 0x7fffffffffff, 0 },
	{ 0xc0000103, 0xffffffff, 0 },
	/* EFER.SCE, STAR, LSTAR, CSTAR, SYSCALL_MASK */
	{ 0xc0000080, 1, 0x500 },
	{ 0xc0000081, ~0UL, 0 },
	{ 0xc0000082, 0x7fffffffffff, 0 },
	{ 0xc0000083, 0x7fffffffffff, 0 },
	{ 0xc0000084, 0xffffffff, 0 },
	/* SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP */
	{ 0x174, 0xffff, 0 },
	{ 0x175, 0x7fffffffffff, 0 },
	{ 0x176, 0x7fffffffffff, 0 },
	/* PAT: an entry that no mapping uses; MTRRs of memory that there is not. */
	{ 0x277, 1UL << 56, 0x0607040600070406 },
	{ MTRR_PHYSBASE7, 0x7ffff000, 6 },
	{ MTRR_FIX64K, 1UL << 56, 0x0406060606060606 },
};

struct checksum_shared *checksum_shared(struct vm *vm)
{
	return (struct checksum_shared *)(vm->mem + SHARED_GPA);
}

static void set_gate(struct vm *vm, unsigned int vector, uint64_t target)
{
	uint64_t *gate = (uint64_t *)(vm->mem + IDT_GPA) + 2 * vector;

	gate[0] = (target & 0xffff) | (SEL_CODE64 << 16) | (0x8e00UL << 32) |
		  ((target & 0xffff0000) << 32);
	gate[1] = 0;
}

/* Returns the guest's XCR0, having set it; 0 if it has none. */
static uint64_t enable_avx(struct vcpu *vcpu, bool avx512)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };

	sregs.cr4 |= 1 << 18;
	vcpu_set_sregs(vcpu, &sregs);
	xcrs.xcrs[0].value = avx512 ? 0xe7 : 7;
	xioctl(vcpu->fd, KVM_SET_XCRS, &xcrs);
	return xcrs.xcrs[0].value;
}

void checksum_start(struct checksum *s, struct vcpu *vcpu, uint64_t seed,
		    unsigned int steps, bool apic)
{
	struct checksum_shared *shared = checksum_shared(vcpu->vm);
	struct kvm_lapic_state lapic;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t *gdt;
	unsigned int i, n = 0;

	memset(s, 0, sizeof(*s));
	vcpu_set_mode(vcpu, MODE_LONG);
	vm_load(vcpu->vm, CODE_GPA, checksum_main);
	vm_load(vcpu->vm, INTERRUPT_GPA, checksum_interrupt);
	vm_load(vcpu->vm, NMI_GPA, checksum_nmi);
	set_gate(vcpu->vm, VECTOR, INTERRUPT_GPA);
	set_gate(vcpu->vm, 2, NMI_GPA);
	gdt = (uint64_t *)(vcpu->vm->mem + GDT_GPA);
	gdt[SEL_LDT / 8] = 0x000082000000000f | (LDT_GPA & 0xffffffUL) << 16;
	gdt[SEL_LDT / 8 + 1] = 0;

	s->steps = steps;
	if (vcpu_cpuid(vcpu, 0x80000001).edx & 1 << 27)
		s->options |= HAS_RDTSCP;
	if (vcpu_cpuid(vcpu, 1).ecx & 1 << 28)
		s->options |= HAS_AVX;
	if (vcpu_cpuid(vcpu, 7).ebx & 1 << 16)
		s->options |= HAS_AVX512;
	if (vcpu_cpuid(vcpu, 0x40000001).eax & 1 << 3)
		s->options |= HAS_CLOCK;
	if (apic) {
		s->options |= HAS_APIC;
		xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
		memcpy(&s->lvt, lapic.regs + APIC_LVT0, sizeof(s->lvt));
	}
	if (s->options & HAS_AVX)
		s->xcr0 = enable_avx(vcpu, s->options & HAS_AVX512);
	if (s->options & HAS_CLOCK)
		vcpu_set_msr(vcpu, MSR_KVM_SYSTEM_TIME_NEW, CLOCK_GPA | 1);

	sregs = vcpu_sregs(vcpu);
	sregs.gdt.limit = s->gdt_limit = GDT_LIMIT;
	sregs.idt.limit = s->idt_limit = IDT_LIMIT;
	sregs.fs.base = DATA_GPA;
	vcpu_set_sregs(vcpu, &sregs);
	s->cr0 = sregs.cr0;
	s->cr4 = sregs.cr4;
	s->ds = s->es = SEL_DATA;

	regs = vcpu_regs(vcpu);
	regs.rax = s->rax = seed;
	vcpu_set_regs(vcpu, &regs);
	for (i = 0; i < 8; i++)
		s->fp[i] = 1;
	s->fcw = 0x37f;
	s->mxcsr = 0x1f80;
	s->dr6 = 0xffff0ff0;
	s->dr7 = 0x400;

	shared->one = 1;
	shared->steps = steps;
	shared->options = s->options;
	for (i = 0; i < N_MSRS; i++) {
		s->msrs[i] = vcpu_msr(vcpu, checksum_msrs[i].index);
		if (!checksum_varies(s, i))
			continue;
		shared->msrs[n].index = checksum_msrs[i].index;
		shared->msrs[n].vary = checksum_msrs[i].vary;
		shared->msrs[n].always = checksum_msrs[i].always;
		n++;
	}
}

bool checksum_run(struct checksum *s, struct vcpu *vcpu, bool nmi)
{
	struct checksum_shared *shared = checksum_shared(vcpu->vm);
	bool right = true, last;

	vcpu_run_to_port(vcpu, PORT_SYNC);
	vcpu_complete(vcpu);
	switch (shared->where) {
	case CHECKSUM_MAIN:
		checksum_follow(s, 1);
		right = checksum_check(s, vcpu);
		s->nmis_due = nmi ? 2 : 0;
		s->nmis += s->nmis_due;
		last = !nmi && !(s->options & HAS_APIC);
		break;
	case CHECKSUM_NMI:
		s->nmis_due--;
		last = !s->nmis_due && !(s->options & HAS_APIC);
		break;
	default:
		last = true;
		break;
	}
	if (s->nmis_due && shared->where != CHECKSUM_INTERRUPT)
		xioctl(vcpu->fd, KVM_NMI, 0);
	if (last)
		shared->stop_at++;
	return right;
}

void checksum_copy_memory(struct vm *vm, const char *mem)
{
	static const struct {
		uint64_t from, to;
	} used[] = {
		{ GDT_GPA, PAGED_PT_GPA },
		{ CODE_GPA, NMI_GPA + PAGE },
		{ STACK_GPA - PAGE, STACK_GPA },
		{ DATA_GPA, CHECKSUM_MEMORY },
	};
	unsigned int i;
	int ret;

	vm->size = CHECKSUM_MEMORY;
	vm->mem = memory_alloc(vm->size, SZ_2M);
	for (i = 0; i < sizeof(used) / sizeof(used[0]); i++)
		memcpy(vm->mem + used[i].from, mem + used[i].from, used[i].to - used[i].from);
	ret = vm_set_slot(vm, 0, 0, 0, vm->size, vm->mem);
	if (ret)
		die("KVM_SET_USER_MEMORY_REGION: %s", strerror(-ret));
}
