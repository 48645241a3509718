// SPDX-License-Identifier: GPL-2.0
/*
 * What the local APIC's task priority costs, and what comes with it: not a
 * test. Prints lines as bench does.
 *
 *   bench_tpr [DEVICE [SUFFIX]]
 *
 * SUFFIX is added to the names, for a module that was loaded otherwise.
 */
#include <linux/kvm.h>

#include "bench.h"

#define VECTOR		0x41
#define HANDLER_AT	0x20000UL

/* %rbx is the page of the registers. */
TIMED(time_none, "	movl $0x50, %eax\n	xorl %edx, %edx\n", "");
TIMED(time_tpr, "	movl $0x50, %eax\n	xorl %edx, %edx\n",
	"movl %eax, 0x80(%rbx)\n"
	"movl %edx, 0x80(%rbx)");
TIMED(time_tpr_read, "	movl $0x50, %eax\n	xorl %edx, %edx\n", "movl 0x80(%rbx), %eax");
TIMED(time_cr8, "	movl $5, %eax\n	xorl %edx, %edx\n",
	"movq %rax, %cr8\n"
	"movq %rdx, %cr8");
TIMED(time_eoi, "	xorl %eax, %eax\n	xorl %edx, %edx\n", "movl %eax, 0xb0(%rbx)");
/* Until the handler has run and ended the interrupt. */
TIMED(time_self_ipi, "	movl $0x44041, %eax\n	xorl %esi, %esi\n",
	"movl %eax, 0x300(%rbx)\n"
	"2: testl %esi, %esi\n"
	"jz 2b");
TIMED(time_self_ipi_msr, "	movl $0x83f, %ecx\n"
			 "	movl $0x41, %eax\n"
			 "	xorl %edx, %edx\n"
			 "	xorl %esi, %esi\n",
	"wrmsr\n"
	"2: testl %esi, %esi\n"
	"jz 2b");

GUEST_CODE(handler_mmio, 64,
	"	movl $0, 0xb0(%rbx)\n"
	"	incl %esi\n"
	"	iretq\n");
GUEST_CODE(handler_msr, 64,
	"	movl $0x80b, %ecx\n"
	"	xorl %eax, %eax\n"
	"	wrmsr\n"
	"	incl %esi\n"
	"	iretq\n");

/*
 * Like 32-bit Windows: raises the TPR and lowers it to what it was, 16 times as
 * around locks, and once around an interrupt that comes when the TPR falls; as
 * one turn of %r12. The time goes to %r15.
 */
GUEST_CODE(windows, 64,
	RDTSC64
	"	movq %rax, %r14\n"
	"1:	movl $16, %r13d\n"
	"2:	movl 0x80(%rbx), %edx\n"
	"	movl $0x41, 0x80(%rbx)\n"
	"	movl %edx, 0x80(%rbx)\n"
	"	decl %r13d\n"
	"	jnz 2b\n"
	"	xorl %esi, %esi\n"
	"	movl 0x80(%rbx), %edx\n"
	"	movl $0x41, 0x80(%rbx)\n"
	"	movl $0x44041, 0x300(%rbx)\n"
	"	movl %edx, 0x80(%rbx)\n"
	"3:	testl %esi, %esi\n"
	"	jz 3b\n"
	"	decq %r12\n"
	"	jnz 1b\n"
	RDTSC64
	"	subq %r14, %rax\n"
	"	movq %rax, %r15\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static const char *suffix = "";

static void row(const char *name, const char *unit, double value)
{
	char full[128];

	snprintf(full, sizeof(full), "%s%s", name, suffix);
	report(full, unit, value);
}

static void create(struct vm *vm, struct vcpu *vcpu, bool x2apic)
{
	struct kvm_enable_cap split = {
		.cap = KVM_CAP_SPLIT_IRQCHIP,
		.args = { 24 },
	};
	volatile uint64_t *gate;
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
	uint32_t enabled = 0x1ff;

	vm_create(vm, VM_MEMORY);
	xioctl(vm->fd, KVM_ENABLE_CAP, &split);
	vcpu_start(vcpu, vm, MODE_LONG);
	gate = vm_u64(vm, IDT_GPA + VECTOR * 16);
	gate[0] = HANDLER_AT % 0x10000 | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (HANDLER_AT & 0xffff0000) << 32;
	gate[1] = 0;
	sregs = vcpu_sregs(vcpu);
	sregs.idt.limit = 0xfff;
	if (x2apic)
		sregs.apic_base |= 0xc00;
	vcpu_set_sregs(vcpu, &sregs);
	xioctl(vcpu->fd, KVM_GET_LAPIC, &lapic);
	memcpy(lapic.regs + 0xf0, &enabled, 4);
	xioctl(vcpu->fd, KVM_SET_LAPIC, &lapic);
	if (x2apic)
		vm_load(vm, HANDLER_AT, handler_msr);
	else
		vm_load(vm, HANDLER_AT, handler_mmio);
}

static void destroy(struct vm *vm, struct vcpu *vcpu)
{
	vcpu_destroy(vcpu);
	vm_destroy(vm);
}

/* Runs guest code with interrupts on, which guest_run() has off. */
static uint64_t run(struct vcpu *vcpu, const char *code, const char *end,
		    uint64_t turns)
{
	char on[512] = { '\xfb' };

	memcpy(on + 1, code, end - code);
	return guest_run(vcpu, on, on + 1 + (end - code), turns, 0xfee00000, 0);
}

static void time_row(struct vcpu *vcpu, const char *name, const char *code,
		     const char *end, uint64_t nothing)
{
	run(vcpu, code, end, 100);
	row(name, "instructions", run(vcpu, code, end, 1000) - nothing);
}
#define ROW(vcpu, name, code, nothing)					\
	time_row(vcpu, name, code, code##_end, nothing)

/* The vCPU's exits so far, from its own statistics. */
static uint64_t exits(struct vcpu *vcpu)
{
	int fd = xioctl(vcpu->fd, KVM_GET_STATS_FD, 0);
	struct kvm_stats_header header;
	struct kvm_stats_desc *desc;
	uint64_t value = 0;
	unsigned int i;
	size_t size;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		die("statistics");
	size = sizeof(*desc) + header.name_size;
	desc = malloc(size);
	for (i = 0; i < header.num_desc; i++) {
		if (pread(fd, desc, size, header.desc_offset + i * size) != (ssize_t)size)
			die("statistics");
		if (!strcmp(desc->name, "exits") &&
		    pread(fd, &value, 8, header.data_offset + desc->offset) != 8)
			die("statistics");
	}
	free(desc);
	close(fd);
	return value;
}

/* A million times raised and lowered: 17 in each turn. */
#define TURNS	58824

static void bench_windows(struct vcpu *vcpu)
{
	uint64_t before, time;

	run(vcpu, windows, windows_end, 1);
	before = exits(vcpu);
	time = run(vcpu, windows, windows_end, TURNS);
	row("TPR like 32-bit Windows: exits", "exits",
	    (double)(exits(vcpu) - before) / TURNS);
	row("TPR like 32-bit Windows", "instructions",
	    (double)time / TURNS);
}

int main(int argc, char **argv)
{
	struct vcpu vcpu;
	uint64_t nothing;
	struct vm vm;

	if (argc > 1)
		setenv("KVM_RS_DEVICE", argv[1], 1);
	if (argc > 2)
		suffix = argv[2];
	create(&vm, &vcpu, false);
	nothing = run(&vcpu, time_none, time_none_end, 100);
	ROW(&vcpu, "TPR raise and lower", time_tpr, nothing);
	ROW(&vcpu, "TPR read", time_tpr_read, nothing);
	ROW(&vcpu, "TPR raise and lower by CR8", time_cr8, nothing);
	ROW(&vcpu, "EOI", time_eoi, nothing);
	ROW(&vcpu, "self-IPI with EOI", time_self_ipi, nothing);
	bench_windows(&vcpu);
	destroy(&vm, &vcpu);

	create(&vm, &vcpu, true);
	ROW(&vcpu, "self-IPI with EOI, x2APIC", time_self_ipi_msr, nothing);
	destroy(&vm, &vcpu);
	return 0;
}
