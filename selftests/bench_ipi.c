// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs to reach another vCPU, and the local APIC's deadline: not a
 * test. Prints lines as bench does.
 *
 *   bench_ipi [DEVICE [cpus]]
 *
 * With "cpus" only what needs two CPUs is measured. There each CPU executes an
 * instruction in turn, so that a figure is what the sender's CPU could have
 * executed until the answer was there.
 */
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>

#include "bench.h"

#define VECTOR		0x41
#define HANDLER_AT	0x20000UL
#define RECEIVER_AT	0x21000UL
#define COUNTER		DATA_GPA	/* interrupts of the receiver */
#define FINISHED	(DATA_GPA + 8)

/* Counts, and ends the interrupt. */
GUEST_CODE(count, 64,
	"	incq 0x100000\n"
	"	pushq %rax\n"
	"	pushq %rcx\n"
	"	pushq %rdx\n"
	"	movl $0x80b, %ecx\n"
	"	xorl %eax, %eax\n"
	"	xorl %edx, %edx\n"
	"	wrmsr\n"
	"	popq %rdx\n"
	"	popq %rcx\n"
	"	popq %rax\n"
	"	iretq\n");

/* Waits for interrupts: in a loop, or halted. */
GUEST_CODE(spin, 64,
	"	sti\n"
	"1:	cmpq $0, 0x100008\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");
GUEST_CODE(halt, 64,
	"1:	sti\n"
	"	hlt\n"
	"	cli\n"
	"	cmpq $0, 0x100008\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* An IPI to vCPU 1, until it was counted. Interrupts are on, or none reaches the host. */
#define IPI								\
	"	movq 0x100000, %rsi\n"					\
	"	movl $0x830, %ecx\n"					\
	"	movl $0x41, %eax\n"					\
	"	movl $1, %edx\n"
TIMED(time_ipi, "	sti\n" IPI,
	"wrmsr\n"
	"2: cmpq 0x100000, %rsi\n"
	"je 2b");
/* With a pause between, in which the receiver halts again and its thread sleeps. */
TIMED(time_ipi_slow, "	movl $100000, %ecx\n"
		     "	sti\n"
		     "4: decl %ecx\n"
		     "	jnz 4b\n"
		     "	" RDTSC64
		     "	movq %rax, %r14\n" IPI,
	"wrmsr\n"
	"2: cmpq 0x100000, %rsi\n"
	"je 2b");

/* A deadline that is past: it is set, goes off, and the handler runs. */
TIMED(time_deadline, "	sti\n"
		     "	movq 0x100000, %rsi\n"
		     "	movl $0x6e0, %ecx\n"
		     "	movl $1, %eax\n"
		     "	xorl %edx, %edx\n",
	"wrmsr\n"
	"2: cmpq 0x100000, %rsi\n"
	"je 2b");
/* One that is far away, and none. */
TIMED(time_deadline_set, "	movl $0x6e0, %ecx\n"
			 "	movl $-1, %eax\n"
			 "	movl $0xffff, %edx\n", "wrmsr");
TIMED(time_nothing, "	movl $0x6e0, %ecx\n"
		    "	movl $-1, %eax\n"
		    "	movl $0xffff, %edx\n", "");

/* From the moment for which a deadline is set to the handler's first instruction. */
GUEST_CODE(time_lateness, 64,
	"	movq $-1, %r15\n"
	"	sti\n"
	"1:	movq 0x100000, %rsi\n"
	RDTSC64
	"	addq $20000, %rax\n"
	"	movq %rax, %r14\n"
	"	movq %rax, %rdx\n"
	"	shrq $32, %rdx\n"
	"	movl $0x6e0, %ecx\n"
	"	wrmsr\n"
	"2:	cmpq 0x100000, %rsi\n"
	"	je 2b\n"
	RDTSC64
	"	subq %r14, %rax\n"
	"	cmpq %r15, %rax\n"
	"	cmovbq %rax, %r15\n"
	"	decq %r12\n"
	"	jnz 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void create(struct vm *vm)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	volatile uint64_t *gate;

	vm_create(vm, VM_MEMORY);
	xioctl(vm->fd, KVM_ENABLE_CAP, &split);
	vm_load(vm, HANDLER_AT, count);
	gate = vm_u64(vm, IDT_GPA + VECTOR * 16);
	gate[0] = (HANDLER_AT & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8e00ULL << 32 |
		  (HANDLER_AT & 0xffff0000) << 32;
	gate[1] = 0;
}

/* A vCPU in x2APIC mode whose timer has a deadline. */
static void add_vcpu(struct vcpu *vcpu, struct vm *vm, unsigned int id)
{
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs sregs;

	vcpu_create(vcpu, vm, id);
	vcpu_set_supported_cpuid(vcpu);
	vcpu_set_mode(vcpu, MODE_LONG);
	sregs = vcpu_sregs(vcpu);
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	sregs.apic_base |= 0xc00;
	vcpu_set_sregs(vcpu, &sregs);
	vcpu_set_msr(vcpu, 0x80f, 0x1ff);
	vcpu_set_msr(vcpu, 0x832, 2 << 17 | VECTOR);
	xioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("affinity: %s", strerror(errno));
}

static void *receive(void *vcpu)
{
	pin(1);
	vcpu_run_to_port(vcpu, PORT_DONE);
	return NULL;
}

static void bench_ipi(const char *name, const char *receiver, const char *receiver_end,
		      const char *sender, const char *sender_end)
{
	struct kvm_regs regs = { .rip = RECEIVER_AT, .rsp = STACK_GPA - PAGE, .rflags = 2 };
	struct kvm_msi last = { .address_lo = 0xfee01000, .data = VECTOR };
	struct vcpu vcpus[2];
	pthread_t thread;
	struct vm vm;

	pin(0);
	create(&vm);
	add_vcpu(&vcpus[0], &vm, 0);
	add_vcpu(&vcpus[1], &vm, 1);
	__vm_load(&vm, RECEIVER_AT, receiver, receiver_end);
	vcpu_set_regs(&vcpus[1], &regs);
	pthread_create(&thread, NULL, receive, &vcpus[1]);
	usleep(20000);
	guest_run(&vcpus[0], sender, sender_end, 20, 0, 0);
	report(name, "instructions", guest_run(&vcpus[0], sender, sender_end, 200, 0, 0));
	*vm_u64(&vm, FINISHED) = 1;
	/* If it is halted. */
	xioctl(vm.fd, KVM_SIGNAL_MSI, &last);
	pthread_join(thread, NULL);
	vcpu_destroy(&vcpus[0]);
	vcpu_destroy(&vcpus[1]);
	vm_destroy(&vm);
}
#define IPI_ROW(name, receiver, sender)					\
	bench_ipi(name, receiver, receiver##_end, sender, sender##_end)

static void bench_deadline(void)
{
	uint64_t nothing;
	struct vcpu vcpu;
	struct vm vm;

	create(&vm);
	add_vcpu(&vcpu, &vm, 0);
	nothing = RUN(&vcpu, time_nothing, 100, 0, 0);
	report("TSC deadline set", "instructions",
	       RUN(&vcpu, time_deadline_set, 1000, 0, 0) - nothing);
	vcpu_set_msr(&vcpu, 0x6e0, 0);
	report("TSC deadline set and fire, past", "instructions",
	       RUN(&vcpu, time_deadline, 1000, 0, 0) - nothing);
	report("TSC deadline, how late it fires", "instructions",
	       RUN(&vcpu, time_lateness, 200, 0, 0));
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		setenv("KVM_RS_DEVICE", argv[1], 1);
	if (argc > 2) {
		IPI_ROW("IPI to a running vCPU, until it is counted", spin, time_ipi);
		IPI_ROW("IPI to a halted vCPU, until it is counted", halt, time_ipi_slow);
		return 0;
	}
	bench_deadline();
	return 0;
}
