// SPDX-License-Identifier: GPL-2.0
/*
 * What the common operations of a VM cost: not a test. Prints one line for
 * each figure: name, unit and value, separated by tabs; lower is better.
 *
 *   bench [DEVICE [cpus|faults|shadow]]
 *
 * With "cpus" only what needs two CPUs is measured, with "faults" what needs
 * four, with "shadow" what is of interest without EPT.
 *
 * Times are differences of RDTSC, which in the emulated machine are counts of
 * instructions, host's and guest's together; on hardware they are cycles. Each
 * is the least of many, that of a move and of a thread switch the median. A jump
 * in front of RDTSC makes the emulator count all that came before it.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>

#include "bench.h"
#include "irq.h"

#define SLOT_GPA	0x40000000UL
#define MIB		(1UL << 20)

TIMED(time_nothing, "	xorl %eax, %eax\n", "");
TIMED(time_cpuid, "	xorl %eax, %eax\n", "cpuid");
TIMED(time_port_read, "	xorl %eax, %eax\n", "inb $0xe0, %al");
/* IA32_PAT is kept in the VMCS, and a guest's access always exits. */
TIMED(time_rdmsr, "	movl $0x277, %ecx\n", "rdmsr");
TIMED(time_wrmsr, "	movl $0x277, %ecx\n"
		  "	movl $0x00070406, %eax\n"
		  "	movl %eax, %edx\n", "wrmsr");
/* A hypercall that does not exist. */
TIMED(time_vmcall, "	movl $0x7fffffff, %eax\n", "vmcall");
TIMED(time_cr0_wp, "	movq %cr0, %rax\n"
		   "	movq %rax, %rcx\n"
		   "	btcq $16, %rcx\n", "movq %rcx, %cr0\n movq %rax, %cr0");
TIMED(time_cr0_wp_nothing, "	movq %cr0, %rax\n"
			   "	movq %rax, %rcx\n"
			   "	btcq $16, %rcx\n", "");
TIMED(time_msr_nothing, "	movl $0x277, %ecx\n"
			"	movl $0x00070406, %eax\n"
			"	movl %eax, %edx\n", "");
TIMED(time_port_write, "	xorl %eax, %eax\n", "outb %al, $0xe1");
TIMED(time_mmio_write, "	xorl %eax, %eax\n", "movl %eax, (%rbx)");
TIMED(time_mmio_read, "	xorl %eax, %eax\n", "movl (%rbx), %eax");

/* The mask of the master PIC, as it is; and a redirection entry, which stays masked. */
TIMED(time_pic_write, "	xorl %eax, %eax\n", "outb %al, $0x21");
TIMED(time_pic_read, "	xorl %eax, %eax\n", "inb $0x21, %al");
TIMED(time_ioapic_write, "	movl $0x10000, %eax\n", "movl %eax, (%rbx)");

/* Writes to %r12 addresses from %rbx, %rsi apart; the time goes to %r15. */
GUEST_CODE(touch, 64,
	RDTSC64
	"	movq %rax, %r14\n"
	"1:	movb $1, (%rbx)\n"
	"	addq %rsi, %rbx\n"
	"	decq %r12\n"
	"	jnz 1b\n"
	RDTSC64
	"	subq %r14, %rax\n"
	"	movq %rax, %r15\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

/* As touch, without paging: %ecx addresses, and the time goes to %ebp. */
GUEST_CODE(touch_nonpaged, 32,
	"	jmp 1f\n"
	"1:	rdtsc\n"
	"	movl %eax, %edi\n"
	"1:	movb $1, (%ebx)\n"
	"	addl %esi, %ebx\n"
	"	decl %ecx\n"
	"	jnz 1b\n"
	"	jmp 1f\n"
	"1:	rdtsc\n"
	"	subl %edi, %eax\n"
	"	movl %eax, %ebp\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static const char *path;

/* The least time of an instruction that exits, less that of none. */
static void bench_exit(struct vcpu *vcpu, const char *name, const char *code,
		       const char *end, uint64_t address, uint64_t nothing)
{
	guest_run(vcpu, code, end, 100, address, 0);
	report(name, "instructions",
	       guest_run(vcpu, code, end, 1000, address, 0) - nothing);
}
#define EXIT_AT(vcpu, name, code, address, nothing)			\
	bench_exit(vcpu, name, code, code##_end, address, nothing)
#define EXIT(vcpu, name, code, nothing)					\
	EXIT_AT(vcpu, name, code, MMIO_GPA, nothing)

/* An eventfd that writes to an address signal: of 0, with KVM_IOEVENTFD_FLAG_DATAMATCH. */
static void ioeventfd(struct vm *vm, unsigned int flags, uint64_t address,
		      unsigned int length)
{
	static int fd = -1;
	struct kvm_ioeventfd request = {
		.addr = address, .len = length, .flags = flags,
	};

	if (fd < 0)
		fd = eventfd(0, EFD_CLOEXEC);
	request.fd = fd;
	xioctl(vm->fd, KVM_IOEVENTFD, &request);
}

static void bench_exits(void)
{
	uint64_t nothing, msr_nothing, cr0_nothing;
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	nothing = RUN(&vcpu, time_nothing, 100, 0, 0);
	msr_nothing = RUN(&vcpu, time_msr_nothing, 100, 0, 0);
	cr0_nothing = RUN(&vcpu, time_cr0_wp_nothing, 100, 0, 0);
	EXIT(&vcpu, "CPUID exit", time_cpuid, nothing);
	EXIT(&vcpu, "RDMSR exit", time_rdmsr, nothing);
	EXIT(&vcpu, "WRMSR exit", time_wrmsr, msr_nothing);
	EXIT(&vcpu, "VMCALL exit", time_vmcall, nothing);
	EXIT(&vcpu, "CR0.WP toggle pair", time_cr0_wp, cr0_nothing);
	EXIT(&vcpu, "port read served by user space", time_port_read, nothing);
	EXIT(&vcpu, "MMIO read served by user space", time_mmio_read, nothing);
	ioeventfd(&vm, KVM_IOEVENTFD_FLAG_PIO, 0xe1, 1);
	EXIT(&vcpu, "ioeventfd, port", time_port_write, nothing);
	ioeventfd(&vm, 0, MMIO_GPA, 0);
	EXIT(&vcpu, "ioeventfd, MMIO", time_mmio_write, nothing);
	ioeventfd(&vm, KVM_IOEVENTFD_FLAG_DATAMATCH, MMIO_GPA + PAGE, 4);
	EXIT_AT(&vcpu, "ioeventfd, MMIO with datamatch", time_mmio_write, MMIO_GPA + PAGE,
		nothing);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* Accesses to controllers in the kernel. */
static void bench_irqchip(void)
{
	struct kvm_vapic_addr vapic = { .vapic_addr = DATA_GPA };
	struct kvm_irqchip ioapic;
	uint64_t nothing;
	struct vcpu vcpu;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	if (vm_create_irqchip(&vm))
		die("no irqchip");
	vcpu_start(&vcpu, &vm, MODE_LONG);
	nothing = RUN(&vcpu, time_nothing, 100, 0, 0);
	EXIT(&vcpu, "port read served by the PIC", time_pic_read, nothing);
	EXIT(&vcpu, "port write served by the PIC", time_pic_write, nothing);
	/* An exit to user space, without and with a word for the TPR that is filled and read. */
	EXIT(&vcpu, "port read by user space, irqchip", time_port_read, nothing);
	xioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, &vapic);
	EXIT(&vcpu, "port read by user space, TPR in memory", time_port_read, nothing);
	vapic.vapic_addr = 0;
	xioctl(vcpu.fd, KVM_SET_VAPIC_ADDR, &vapic);
	irq_get_chip(&vm, KVM_IRQCHIP_IOAPIC, &ioapic);
	/* The lower half of the entry of pin 20. */
	ioapic.chip.ioapic.ioregsel = 0x10 + 2 * 20;
	irq_set_chip(&vm, &ioapic);
	EXIT_AT(&vcpu, "I/O APIC write", time_ioapic_write, IOAPIC_GPA + 0x10, nothing);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("affinity: %s", strerror(errno));
}

GUEST_CODE(report_for_ever, 64,
	"1:	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");

#define MOVES	2000

static int compare(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

/*
 * KVM_RUN to a port exit on the CPU where the vCPU was not last. What the other CPU does
 * just then makes it shorter or longer: the median of many.
 */
static void bench_move(void)
{
	static long times[MOVES];
	uint64_t start;
	struct vcpu vcpu;
	unsigned int i;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, report_for_ever);
	for (i = 0; i < MOVES; i++) {
		pin(i & 1);
		start = rdtsc();
		if (ioctl(vcpu.fd, KVM_RUN, 0))
			die("run: %s", strerror(errno));
		times[i] = rdtsc() - start;
	}
	qsort(times, MOVES, sizeof(times[0]), compare);
	report("vCPU move between CPUs", "instructions", times[MOVES / 2]);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/*
 * Notes at DATA_GPA the last two readings of the TSC between which the guest
 * did not run; until the word behind them is set. Interrupts are on: the
 * emulator takes none from a guest that has them off.
 */
GUEST_CODE(note_gaps, 64,
	"	sti\n"
	"	" RDTSC64
	"1:	movq %rax, %rbx\n"
	"	" RDTSC64
	"	movq %rax, %rcx\n"
	"	subq %rbx, %rcx\n"
	"	cmpq $500, %rcx\n"
	"	jb 2f\n"
	"	movq %rbx, 0x100000\n"
	"	movq %rax, 0x100008\n"
	"2:	cmpq $0, 0x100010\n"
	"	je 1b\n"
	"	outb %al, $" STR(PORT_DONE) "\n");

static void *run_thread(void *vcpu)
{
	vcpu_run_to_port(vcpu, PORT_DONE);
	return NULL;
}

#define SWITCHES	200

/*
 * A vCPU's thread loses its CPU, in its guest, to a thread that a timer wakes,
 * and gets it back when that one sleeps: from the guest's last instruction to
 * the other thread's first, and from that one's last to the guest's first. The
 * timer's interrupt and the other thread's system call are part of it.
 */
static void bench_switch(void)
{
	struct sched_param realtime = { .sched_priority = 1 }, other = {};
	struct timespec nap = { .tv_nsec = 1000000 };
	uint64_t woken, asleep;
	long times[SWITCHES];
	volatile uint64_t *gap;
	struct vcpu vcpu;
	pthread_t thread;
	unsigned int i;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	vm_load(&vm, CODE_GPA, note_gaps);
	gap = vm_u64(&vm, DATA_GPA);
	pthread_create(&thread, NULL, run_thread, &vcpu);
	if (sched_setscheduler(0, SCHED_FIFO, &realtime))
		die("SCHED_FIFO: %s", strerror(errno));
	for (i = 0; i < 20; i++)
		nanosleep(&nap, NULL);
	for (i = 0; i < SWITCHES; i++) {
		asleep = rdtsc();
		nanosleep(&nap, NULL);
		woken = rdtsc();
		/* The gap before this nap ended with the guest's first reading. */
		times[i] = gap[1] - asleep;
		nanosleep(&nap, NULL);
		/* And the one after it began with its last. */
		times[i] += woken - gap[0];
	}
	/* A tick that comes between makes one wrong in either direction. */
	qsort(times, SWITCHES, sizeof(times[0]), compare);
	gap[2] = 1;
	sched_setscheduler(0, SCHED_OTHER, &other);
	pthread_join(thread, NULL);
	report("vCPU thread switch (sched_out + sched_in)", "instructions",
	       times[SWITCHES / 2]);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* Software-enables the local APIC, says so, and halts with interrupts on. */
GUEST_CODE(halt, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	movq $1, 0x100008\n"
	"1:	sti\n"
	"	hlt\n"
	"	jmp 1b\n");

/* The same, but never halts. */
GUEST_CODE(spin, 64,
	"	movl $0xfee000f0, %edi\n"
	"	movl $0x1ff, (%rdi)\n"
	"	movq $1, 0x100008\n"
	"	sti\n"
	"1:	jmp 1b\n");

/* Notes the time of an interrupt, and ends it. */
GUEST_CODE(note_time, 64,
	"	pushq %rax\n"
	"	pushq %rdx\n"
	RDTSC64
	"	movq %rax, 0x100000\n"
	"	movl $0xfee000b0, %edx\n"
	"	movl $0, (%rdx)\n"
	"	popq %rdx\n"
	"	popq %rax\n"
	"	iretq\n");

static void *run_for_ever(void *vcpu)
{
	/* Interrupted at the end. */
	vcpu_run(vcpu);
	return NULL;
}

static void no_op(int signal)
{
}

/* From a write to an eventfd to the guest's handler. */
static void bench_irqfd(const char *name, const char *code, const char *end)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct sigaction action = { .sa_handler = no_op };
	struct timespec nap = { .tv_nsec = 2000000 };
	struct kvm_irqfd irqfd = { .gsi = 1 };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry;
	} routing = {
		.head.nr = 1,
		.entry = {
			.gsi = 1,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = 0xfee00000, .data = 0x60 },
		},
	};
	uint64_t start, times[101], zero = 0;
	struct kvm_device_attr same_tsc = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (unsigned long)&zero,
	};
	volatile uint64_t *noted, *gate;
	struct kvm_sregs sregs;
	struct vcpu vcpu;
	pthread_t thread;
	unsigned int i;
	struct vm vm;

	vm_create(&vm, VM_MEMORY);
	xioctl(vm.fd, KVM_ENABLE_CAP, &split);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	xioctl(vcpu.fd, KVM_SET_DEVICE_ATTR, &same_tsc);
	xioctl(vm.fd, KVM_SET_GSI_ROUTING, &routing);
	irqfd.fd = eventfd(0, EFD_CLOEXEC);
	xioctl(vm.fd, KVM_IRQFD, &irqfd);
	__vm_load(&vm, CODE_GPA, code, end);
	vm_load(&vm, CODE_GPA + PAGE, note_time);
	sregs = vcpu_sregs(&vcpu);
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 0xfff;
	vcpu_set_sregs(&vcpu, &sregs);
	gate = vm_u64(&vm, IDT_GPA + 0x60 * 16);
	gate[0] = ((CODE_GPA + PAGE) & 0xffff) | (uint64_t)SEL_CODE64 << 16 |
		  0x8e00ULL << 32 | ((CODE_GPA + PAGE) & 0xffff0000) << 32;
	gate[1] = 0;
	noted = vm_u64(&vm, DATA_GPA);
	sigaction(SIGUSR1, &action, NULL);
	pin(0);
	pthread_create(&thread, NULL, run_for_ever, &vcpu);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(1, &set);
		pthread_setaffinity_np(thread, sizeof(set), &set);
	}
	while (!noted[1])
		nanosleep(&nap, NULL);
	for (i = 0; i < 101; i++) {
		nanosleep(&nap, NULL);
		noted[0] = 0;
		start = rdtsc();
		eventfd_write(irqfd.fd, 1);
		while (!noted[0])
			nanosleep(&nap, NULL);
		times[i] = noted[0] - start;
	}
	qsort(times, 101, sizeof(times[0]), compare);
	report(name, "instructions", times[50]);
	vcpu.run->immediate_exit = 1;
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	close(irqfd.fd);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}
#define IRQFD(name, code)	bench_irqfd(name, code, code##_end)

static char *prefault(size_t size, bool huge)
{
	char *mem = memory_alloc(size, SZ_2M);
	size_t at;

	madvise(mem, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	for (at = 0; at < size; at += PAGE)
		mem[at] = 1;
	return mem;
}

#define REPEATS		7

/*
 * The guest writes to each page of memory that the client has touched, mapped
 * by @step on the host's side: time of one violation, and host memory that
 * the slot and its tables take, for a GiB.
 */
static void bench_violations(const char *name, const char *memory_name,
			     size_t size, size_t step)
{
	long pages[REPEATS], before;
	uint64_t time, least = ~0UL;
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;
	char *mem;

	mem = prefault(size, step == SZ_2M);
	for (i = 0; i < REPEATS; i++) {
		vm_create(&vm, VM_MEMORY);
		vcpu_start(&vcpu, &vm, MODE_LONG);
		RUN(&vcpu, touch, 1, DATA_GPA, PAGE);
		before = host_pages_used();
		if (vm_set_slot(&vm, 1, 0, SLOT_GPA, size, mem))
			die("slot");
		/* The tables above the last level are not what is timed. */
		RUN(&vcpu, touch, 1, SLOT_GPA, step);
		time = RUN(&vcpu, touch, size / step - 1, SLOT_GPA + step, step);
		pages[i] = host_pages_used() - before;
		if (time < least)
			least = time;
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
	qsort(pages, REPEATS, sizeof(pages[0]), compare);
	/* Four instructions of each turn are the guest's loop. */
	report(name, "instructions", (double)least / (size / step - 1) - 4);
	report(memory_name, "KiB", pages[REPEATS / 2] * 4.0 * (1024 * MIB / size));
	munmap(mem, size);
}

static uint64_t touch_nonpaged_run(struct vcpu *vcpu, uint64_t turns, uint64_t gpa)
{
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		.rcx = turns, .rbx = gpa, .rsi = PAGE,
	};

	vm_load(vcpu->vm, CODE_GPA, touch_nonpaged);
	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
	return vcpu_regs(vcpu).rbp;
}

/* The same fault by the tables of a guest that does not page. */
static void bench_nonpaged(void)
{
	size_t size = 64 * MIB;
	uint64_t time, least = ~0UL;
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;
	char *mem = prefault(size, false);

	for (i = 0; i < REPEATS; i++) {
		vm_create(&vm, VM_MEMORY);
		vcpu_start(&vcpu, &vm, MODE_PROTECTED);
		touch_nonpaged_run(&vcpu, 1, DATA_GPA);
		if (vm_set_slot(&vm, 1, 0, SLOT_GPA, size, mem))
			die("slot");
		touch_nonpaged_run(&vcpu, 1, SLOT_GPA);
		time = touch_nonpaged_run(&vcpu, size / PAGE - 1, SLOT_GPA + PAGE);
		if (time < least)
			least = time;
		vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
	report("nonpaging shadow fault, 4K page", "instructions",
	       (double)least / (size / PAGE - 1) - 4);
	munmap(mem, size);
}

#define FAULTERS	4
#define FAULTER_SIZE	(8 * MIB)

static struct faulter {
	struct vcpu vcpu;
	pthread_barrier_t *start;
	pthread_t thread;
	uint64_t time;
} faulters[FAULTERS];

static void *run_faulter(void *arg)
{
	struct faulter *self = arg;
	unsigned int index = self - faulters;
	struct kvm_regs regs = {
		.rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2,
		.r12 = FAULTER_SIZE / PAGE, .rsi = PAGE,
		.rbx = SLOT_GPA + index * FAULTER_SIZE,
	};
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(index, &set);
	sched_setaffinity(0, sizeof(set), &set);
	vcpu_set_regs(&self->vcpu, &regs);
	pthread_barrier_wait(self->start);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	self->time = vcpu_regs(&self->vcpu).r15;
	return NULL;
}

/*
 * Several vCPUs take violations at once, each in memory of its own: the time
 * until the last one is done, for each fault of all of them.
 */
static void bench_parallel(unsigned int count, char *mem)
{
	char name[64];
	uint64_t time, least = ~0UL;
	pthread_barrier_t start;
	struct vm vm;
	unsigned int i, k;

	for (i = 0; i < REPEATS; i++) {
		vm_create(&vm, VM_MEMORY);
		vm_load(&vm, CODE_GPA, touch);
		pthread_barrier_init(&start, NULL, count);
		for (k = 0; k < count; k++) {
			vcpu_create(&faulters[k].vcpu, &vm, k);
			vcpu_set_supported_cpuid(&faulters[k].vcpu);
			vcpu_set_mode(&faulters[k].vcpu, MODE_LONG);
			faulters[k].start = &start;
		}
		if (vm_set_slot(&vm, 1, 0, SLOT_GPA, FAULTERS * FAULTER_SIZE, mem))
			die("slot");
		for (k = 0; k < count; k++)
			pthread_create(&faulters[k].thread, NULL, run_faulter, &faulters[k]);
		time = 0;
		for (k = 0; k < count; k++) {
			pthread_join(faulters[k].thread, NULL);
			if (faulters[k].time > time)
				time = faulters[k].time;
			vcpu_destroy(&faulters[k].vcpu);
		}
		if (time < least)
			least = time;
		pthread_barrier_destroy(&start);
		vm_destroy(&vm);
	}
	snprintf(name, sizeof(name), "EPT violation, 4K page, of %u vCPU%s", count,
		 count > 1 ? "s at once" : "");
	report(name, "ticks each", (double)least / (count * (FAULTER_SIZE / PAGE)));
}

static void bench_faults(void)
{
	char *mem = prefault(FAULTERS * FAULTER_SIZE, false);
	unsigned int count;

	for (count = 1; count <= FAULTERS; count *= 2)
		bench_parallel(count, mem);
	munmap(mem, FAULTERS * FAULTER_SIZE);
}

#define LOG_SIZE	(64 * MIB)
#define LOG_SCALE	(1024 * MIB / LOG_SIZE)
/* Every 101st page: 1% of them, and all tables and words of the log. */
#define LOG_STEP	(101 * PAGE)
#define LOG_DIRTY	(LOG_SIZE / LOG_STEP)

/* Dirty logging: for a GiB in small pages that are all mapped. */
static void bench_dirty_log(void)
{
	uint64_t time, clean = ~0UL, dirty = ~0UL, fault = ~0UL;
	struct kvm_dirty_log log = { .slot = 1 };
	struct vcpu vcpu;
	struct vm vm;
	unsigned int i;
	char *mem;

	mem = prefault(LOG_SIZE, false);
	log.dirty_bitmap = prefault(LOG_SIZE / PAGE / 8, false);
	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	if (vm_set_slot(&vm, 1, 0, SLOT_GPA, LOG_SIZE, mem))
		die("slot");
	RUN(&vcpu, touch, LOG_SIZE / PAGE, SLOT_GPA, PAGE);
	if (vm_set_slot(&vm, 1, KVM_MEM_LOG_DIRTY_PAGES, SLOT_GPA, LOG_SIZE, mem))
		die("log");
	for (i = 0; i < REPEATS; i++) {
		time = rdtsc();
		xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
		time = rdtsc() - time;
		if (time < clean)
			clean = time;
		time = RUN(&vcpu, touch, LOG_DIRTY, SLOT_GPA, LOG_STEP);
		if (time < fault)
			fault = time;
		time = rdtsc();
		xioctl(vm.fd, KVM_GET_DIRTY_LOG, &log);
		time = rdtsc() - time;
		if (time < dirty)
			dirty = time;
	}
	report("KVM_GET_DIRTY_LOG of a clean GiB", "instructions", clean * LOG_SCALE);
	report("KVM_GET_DIRTY_LOG of a GiB, 1% dirty", "instructions", dirty * LOG_SCALE);
	report("write fault under logging", "instructions", (double)fault / LOG_DIRTY - 4);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	munmap(mem, LOG_SIZE);
	munmap(log.dirty_bitmap, LOG_SIZE / PAGE / 8);
}

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* Counts of RDTSC in a second, as the kernel's clocks see it. */
static double rdtsc_rate(void)
{
	uint64_t ticks = rdtsc();
	double time = seconds(CLOCK_MONOTONIC_RAW);

	while (seconds(CLOCK_MONOTONIC_RAW) - time < 0.1)
		;
	return (rdtsc() - ticks) / (seconds(CLOCK_MONOTONIC_RAW) - time);
}

/*
 * Two figures: what the calling thread executes, and the time that passes for
 * it, most of which may be waiting for grace periods in whole ticks.
 */
static void bench_create(void)
{
	int dev = open(path, O_RDWR | O_CLOEXEC), vm, vcpu;
	double cpu, least = 1e9, rate = rdtsc_rate();
	long elapsed[51];
	unsigned int i;

	for (i = 0; i < 51; i++) {
		elapsed[i] = rdtsc();
		cpu = seconds(CLOCK_THREAD_CPUTIME_ID);
		vm = ioctl(dev, KVM_CREATE_VM, 0);
		vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
		if (vcpu < 0)
			die("vcpu: %s", strerror(errno));
		close(vcpu);
		close(vm);
		cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
		elapsed[i] = rdtsc() - elapsed[i];
		if (cpu < least)
			least = cpu;
	}
	close(dev);
	qsort(elapsed, 51, sizeof(elapsed[0]), compare);
	report("VM and vCPU create and destroy", "instructions",
	       (long)(least * rate / 10 + 0.5) * 10);
	report("VM and vCPU create and destroy, elapsed", "ticks",
	       elapsed[25] / 1000 * 1000);
}

/* Host memory of a VM with a vCPU and one slot whose memory is not touched. */
static void bench_vm_memory(void)
{
	static struct vcpu vcpus[50];
	static struct vm vms[50];
	long pages[REPEATS], before;
	unsigned int i, k;
	char *mem = memory_alloc(SZ_2M, SZ_2M);

	for (k = 0; k < REPEATS; k++) {
		before = host_pages_used();
		for (i = 0; i < 50; i++) {
			vm_create_empty(&vms[i]);
			vcpu_create(&vcpus[i], &vms[i], 0);
			if (vm_set_slot(&vms[i], 0, 0, 0, SZ_2M, mem))
				die("slot");
		}
		pages[k] = host_pages_used() - before;
		for (i = 0; i < 50; i++) {
			vcpu_destroy(&vcpus[i]);
			vm_destroy(&vms[i]);
		}
	}
	qsort(pages, REPEATS, sizeof(pages[0]), compare);
	report("host memory of a VM", "KiB", pages[REPEATS / 2] * 4 / 50.0);
}

#define DELETED		(256 * MIB)
#define WINDOW		(16 * MIB)

/*
 * A slot goes that is all mapped, in 4K pages. The memory behind it is a few
 * MiB that repeat, mapped ahead: the guest need not run.
 */
static void bench_delete(void)
{
	struct kvm_pre_fault_memory range = { .gpa = SLOT_GPA, .size = DELETED };
	int fd = memfd_create("bench", MFD_CLOEXEC);
	struct vm vm;
	struct vcpu vcpu;
	uint64_t start;
	size_t at;
	char *mem;

	if (fd < 0 || ftruncate(fd, WINDOW))
		die("memfd: %s", strerror(errno));
	mem = memory_alloc(DELETED, SZ_2M);
	for (at = 0; at < DELETED; at += WINDOW)
		if (mmap(mem + at, WINDOW, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) == MAP_FAILED)
			die("mmap: %s", strerror(errno));
	vm_create_empty(&vm);
	vcpu_create(&vcpu, &vm, 0);
	if (vm_set_slot(&vm, 0, 0, SLOT_GPA, DELETED, mem))
		die("slot");
	while (range.size)
		if (ioctl(vcpu.fd, KVM_PRE_FAULT_MEMORY, &range))
			die("KVM_PRE_FAULT_MEMORY: %s", strerror(errno));
	start = rdtsc();
	if (vm_set_slot(&vm, 0, 0, SLOT_GPA, 0, mem))
		die("slot");
	report("slot delete, for a GiB mapped in 4K pages", "instructions",
	       (rdtsc() - start) * (1024.0 * MIB / DELETED));
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
	munmap(mem, DELETED);
	close(fd);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		setenv("KVM_RS_DEVICE", argv[1], 1);
	path = device_path();
	if (argc > 2) {
		if (!strcmp(argv[2], "cpus")) {
			bench_move();
			IRQFD("irqfd to a running vCPU", spin);
		} else if (!strcmp(argv[2], "faults")) {
			bench_faults();
		} else if (!strcmp(argv[2], "shadow")) {
			bench_nonpaged();
		} else {
			die("what is %s?", argv[2]);
		}
		return 0;
	}
	bench_exits();
	bench_irqchip();
	bench_switch();
	IRQFD("irqfd to a halted vCPU", halt);
	bench_violations("EPT violation, 4K page", "host memory of a GiB in 4K pages",
			 64 * MIB, PAGE);
	bench_violations("EPT violation, 2M page", "host memory of a GiB in 2M pages",
			 256 * MIB, SZ_2M);
	bench_dirty_log();
	bench_delete();
	bench_create();
	bench_vm_memory();
	return 0;
}
