// SPDX-License-Identifier: GPL-2.0
/*
 * The sum of checksum.h as the client makes it, in the guest's order, and the
 * guest held against it.
 */
#include "checksum_guest.h"

static uint32_t limited(uint64_t rax, uint32_t vary, uint32_t always)
{
	return (rax & vary) | always;
}

static void follow_steps(struct checksum *s)
{
	uint64_t *window = s->mem;
	uint64_t rcx;

	if (s->msrs[MSR_FS_BASE] != DATA_GPA)
		window += CHECKSUM_WORDS / 2;
	for (rcx = s->steps; rcx; rcx--) {
		s->rax ^= s->rax << 13;
		s->rax ^= s->rax >> 7;
		s->rax ^= s->rax << 17;
		window[rcx & 511] += s->rax;
		s->rax += window[1];
		s->r8 += s->rax;
		s->r15 ^= s->r8;
		s->r11 += s->r15;
		s->xmm0 += s->rax;
	}
	s->rax ^= s->xmm0;
	s->rax += s->r11;
}

static void follow_registers(struct checksum *s)
{
	uint64_t low, high;
	unsigned int i;

	s->r8 = s->r11;
	s->rsi += s->rax;
	s->rdi ^= s->rsi;
	s->rbp += s->rdi;
	s->r9 ^= s->rbp;
	s->r10 += s->r9;
	s->r12 ^= s->r10;
	s->r13 += s->r12;
	s->r14 ^= s->r13;
	s->rax += s->r14;
	s->rax += ++s->fp[s->fp_top];
	s->fp_top = (s->fp_top + 1) % 8;
	s->rax += s->fcw;
	s->fcw = limited(s->rax, 0xc00, 0x37f);
	s->rax += s->mxcsr;
	s->mxcsr = limited(s->rax, 0x6000, 0x1f80);

	low = s->rax;
	high = s->rsi;
	for (i = 3; i < 15; i += 2) {
		low = s->xmm[i][0] += low;
		high = s->xmm[i][1] += high;
	}
	for (i = 4; i < 16; i += i == 14 ? 1 : 2) {
		low = s->xmm[i][0] ^= low;
		high = s->xmm[i][1] ^= high;
	}
	s->rax += low;
	s->rax ^= high;
	if (s->options & HAS_AVX) {
		s->rax += s->ymm0 += s->rax;
		s->rax += s->ymm15 += s->rax;
		s->rax += s->xcr0;
	}
	if (s->options & HAS_AVX512) {
		s->rax += s->zmm16 += s->rax;
		s->rax += s->k1;
		s->k1 = (uint16_t)s->rax;
	}
}

static void follow_system(struct checksum *s)
{
	uint64_t swap;
	unsigned int i;

	for (i = 0; i < 4; i++)
		s->dr[i] = s->rax += s->dr[i];
	s->rax += s->dr6;
	s->dr6 = limited(s->rax, 0xf, 0xffff0ff0);
	s->rax += s->dr7;
	s->dr7 = limited(s->rax, 0x300, 0x400);
	s->cr2 = s->rax += s->cr2;
	s->rax += s->cr4;
	s->cr4 = (s->cr4 & ~4UL) | (s->rax & 4);
	s->rax += s->cr0;
	s->cr0 = (s->cr0 & ~0x40000UL) | (s->rax & 0x40000);
	s->rax += s->es;
	s->es = s->rax & SEL_DATA;
	s->rax += s->ds;
	s->ds = s->rax & SEL_DATA;
	s->rax += SEL_TSS;
	s->rax += s->ldtr;
	s->ldtr = s->rax & SEL_LDT;
	s->rax += s->gdt_limit;
	s->gdt_limit = limited(s->rax, 0x80, GDT_LIMIT);
	s->rax += s->idt_limit;
	s->idt_limit = limited(s->rax, 0x400, IDT_LIMIT);
	for (i = 0; i < N_MSRS; i++) {
		if (!checksum_varies(s, i))
			continue;
		s->rax += s->msrs[i];
		s->msrs[i] = (s->rax & checksum_msrs[i].vary) | checksum_msrs[i].always;
	}
	swap = s->msrs[MSR_GS_BASE];
	s->msrs[MSR_GS_BASE] = s->msrs[MSR_KERNEL_GS];
	s->msrs[MSR_KERNEL_GS] = swap;
	if (s->options & HAS_RDTSCP)
		s->rax += s->msrs[MSR_TSC_AUX];
	if (s->options & HAS_APIC) {
		s->rax += s->lvt;
		s->lvt = limited(s->rax, 0x3f, 0x10040);
		s->rax += s->ldr;
		s->ldr = limited(s->rax, 0xff000000, 0);
		s->rax += s->icount;
		s->icount = s->rax;
		s->rax += s->divide;
		s->divide = limited(s->rax, 0xb, 0);
	}
	s->flags = s->rax & FLAGS;
}

/* What the guest does after a report. */
static void follow_stop(struct checksum *s)
{
	s->rax += s->flags;
	s->rax += s->nmis;
	if (s->options & HAS_APIC) {
		s->rax += 15;
		s->rax += s->reports;
	}
}

void checksum_follow(struct checksum *s, unsigned int reports)
{
	while (reports--) {
		if (s->reports)
			follow_stop(s);
		follow_steps(s);
		follow_registers(s);
		follow_system(s);
		s->reports++;
	}
}

static bool expect(const struct checksum *s, const char *what, uint64_t is, uint64_t want)
{
	if (is != want)
		printf("# report %lu: %s is %#lx, not %#lx\n", s->reports, what, is, want);
	return is == want;
}

/* Registers that took the sum on its way, in that order: the first one wrong tells where. */
static void tell_details(const struct checksum *s, struct vcpu *vcpu)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);
	struct kvm_debugregs dr;
	unsigned int i;
	char name[16];

	xioctl(vcpu->fd, KVM_GET_DEBUGREGS, &dr);
	for (i = 0; i < 4; i++) {
		sprintf(name, "dr%u", i);
		expect(s, name, dr.db[i], s->dr[i]);
	}
	expect(s, "dr6", dr.dr6, s->dr6);
	expect(s, "dr7", dr.dr7, s->dr7);
	expect(s, "cr2", sregs.cr2, s->cr2);
	expect(s, "cr4", sregs.cr4, s->cr4);
	expect(s, "cr0", sregs.cr0, s->cr0);
	expect(s, "es", sregs.es.selector, s->es);
	expect(s, "ds", sregs.ds.selector, s->ds);
	expect(s, "ldtr", sregs.ldt.selector, s->ldtr);
	expect(s, "limit of gdtr", sregs.gdt.limit, s->gdt_limit);
	expect(s, "limit of idtr", sregs.idt.limit, s->idt_limit);
	for (i = 0; i < N_MSRS; i++) {
		if (!checksum_varies(s, i))
			continue;
		sprintf(name, "MSR %#x", checksum_msrs[i].index);
		expect(s, name, vcpu_msr(vcpu, checksum_msrs[i].index), s->msrs[i]);
	}
}

bool checksum_check(const struct checksum *s, struct vcpu *vcpu)
{
	struct checksum_shared *shared = checksum_shared(vcpu->vm);
	struct kvm_regs regs = vcpu_regs(vcpu);
	bool right = true;

	right &= expect(s, "number of reports", shared->reports, s->reports);
	right &= expect(s, "place", shared->where, CHECKSUM_MAIN);
	right &= expect(s, "number of NMIs", shared->nmis, s->nmis);
	right &= expect(s, "number of times that went backwards", shared->backwards, 0);
	right &= expect(s, "rsi", regs.rsi, s->rsi);
	right &= expect(s, "rdi", regs.rdi, s->rdi);
	right &= expect(s, "rbp", regs.rbp, s->rbp);
	right &= expect(s, "r8", regs.r8, s->r8);
	right &= expect(s, "r14", regs.r14, s->r14);
	right &= expect(s, "r15", regs.r15, s->r15);
	right &= expect(s, "flags", regs.rflags & FLAGS, s->flags);
	right &= expect(s, "rax", regs.rax, s->rax);
	if (memcmp(vcpu->vm->mem + DATA_GPA, s->mem, sizeof(s->mem))) {
		printf("# report %lu: memory is wrong\n", s->reports);
		right = false;
	}
	if (!right)
		tell_details(s, vcpu);
	return right;
}
