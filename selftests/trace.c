// SPDX-License-Identifier: GPL-2.0
/*
 * Trace events: a guest does one thing of each kind, and tracefs tells each
 * with its values, and nothing once the events are off. Works on kvm_intel
 * too, whose events of these names say the same.
 */
#include <stdarg.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "vm.h"

#define TRACEFS		"/sys/kernel/tracing"
#define INSTANCE	TRACEFS "/instances/kvm_rs_selftest"
#define PAGE_GPA	0x400000UL	/* a slot that nothing has touched */
#define TEXT_SIZE	(1 << 20)

FIXTURE(trace) {
	struct vm vm;
	struct vcpu vcpu;
	char *text;
};

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static const char *events_dir(void)
{
	return device_is_kvm_rs() ? INSTANCE "/events/kvm_rs"
				  : INSTANCE "/events/kvm";
}

static bool set_events(const char *event, const char *on)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s%senable", events_dir(), event,
		 *event ? "/" : "");
	return write_text(path, on);
}

/* Reads the trace as it is now. */
static const char *read_trace(FIXTURE_DATA(trace) *self)
{
	int fd = open(INSTANCE "/trace", O_RDONLY);
	ssize_t n, size = 0;

	while ((n = read(fd, self->text + size, TEXT_SIZE - 1 - size)) > 0)
		size += n;
	close(fd);
	self->text[size] = 0;
	return self->text;
}

/* Returns what follows a line of this event and text, or NULL. */
static const char *find(const char *text, const char *format, ...)
{
	char line[400];
	const char *found;
	va_list list;

	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	found = strstr(text, line);
	if (!found)
		printf("# no \"%s\"\n", line);
	return found ? found + strlen(line) : NULL;
}

FIXTURE_SETUP(trace)
{
	if (access(TRACEFS "/instances", F_OK))
		SKIP(return, "no tracefs");
	rmdir(INSTANCE);
	ASSERT_EQ(mkdir(INSTANCE, 0755), 0);
	ASSERT_EQ(access(events_dir(), F_OK), 0);
	self->text = malloc(TEXT_SIZE);
	vm_create(&self->vm, VM_MEMORY);
	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, PAGE_GPA, PAGE,
			      memory_alloc(PAGE, PAGE)), 0);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
}

FIXTURE_TEARDOWN(trace)
{
	if (!self->text)
		return;
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
	rmdir(INSTANCE);
}

#define DONE	"\n	outb %al, $" STR(PORT_DONE) "\n"

GUEST_CODE(cpuid, 64, "xor %eax, %eax; xor %ecx, %ecx; cpuid" DONE);

TEST_F(trace, entry_exit_and_cpuid)
{
	const char *at, *text;
	struct kvm_regs regs;

	vm_load(&self->vm, CODE_GPA, cpuid);
	ASSERT_TRUE(set_events("", "1"));
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	ASSERT_TRUE(set_events("", "0"));
	regs = vcpu_regs(&self->vcpu);
	text = read_trace(self);

	at = find(text, "kvm_entry: vcpu 0, rip 0x%lx intr_info 0x00000000 error_code 0x00000000",
		  CODE_GPA);
	ASSERT_NE(at, NULL);
	/* In the order in which it happened. */
	at = find(at, "kvm_exit: vcpu 0 reason CPUID rip 0x%lx info1 0x0000000000000000 "
		  "info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000",
		  CODE_GPA + 4);
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_cpuid: func 0 idx 0 rax %llx rbx %llx rcx %llx rdx %llx, "
		  "cpuid entry found", regs.rax, regs.rbx, regs.rcx, regs.rdx);
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_entry: vcpu 0, rip 0x%lx ", CODE_GPA + 6);
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_exit: vcpu 0 reason IO_INSTRUCTION rip 0x%lx info1 0x%016x",
		  CODE_GPA + 6, PORT_DONE << 16 | 0x40);
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_pio: pio_write at 0x%x size 1 count 1 val 0x%x ", PORT_DONE,
		  (unsigned int)regs.rax & 0xff);
	ASSERT_NE(at, NULL);
	EXPECT_NE(find(at, "kvm_userspace_exit: reason KVM_EXIT_IO (2)"), NULL);

	/* Off is off. */
	ASSERT_TRUE(write_text(INSTANCE "/trace", ""));
	vcpu_set_rip(&self->vcpu, CODE_GPA);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(strstr(read_trace(self), "kvm_"), NULL);

	/* One event alone. */
	ASSERT_TRUE(set_events("kvm_cpuid", "1"));
	vcpu_set_rip(&self->vcpu, CODE_GPA);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	ASSERT_TRUE(set_events("kvm_cpuid", "0"));
	text = read_trace(self);
	EXPECT_NE(find(text, "kvm_cpuid: func 0 idx 0 "), NULL);
	EXPECT_EQ(strstr(text, "kvm_exit"), NULL);
}

/* PAT, which every guest has; an MSR that no CPU has; CR4.PSE. */
GUEST_CODE(registers, 64,
	"	movl $0x277, %ecx; movl $0x07040600, %eax; movl $0x00070406, %edx\n"
	"	wrmsr; rdmsr\n"
	"	lea 1f(%rip), %rax; mov %rax, " REC_RESUME "\n"
	"	movl $0x12345678, %ecx; movl $0x9abc, %eax; movl $0x1, %edx\n"
	"	wrmsr\n"
	"1:	mov %cr4, %rbx; xor $0x10, %rbx; mov %rbx, %cr4\n"
	"	movl $0x1234, %eax; movl $1, %ebx; movl $2, %ecx; movl $3, %edx\n"
	"	movl $4, %esi; vmcall" DONE);

TEST_F(trace, registers)
{
	unsigned long cr4 = vcpu_sregs(&self->vcpu).cr4 ^ 0x10;
	const char *at;

	vm_load(&self->vm, CODE_GPA, registers);
	ASSERT_TRUE(set_events("", "1"));
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	ASSERT_TRUE(set_events("", "0"));
	EXPECT_EQ(vm_record(&self->vm)->count, 1);

	at = find(read_trace(self), "kvm_msr: msr_write 277 = 0x7040607040600\n");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_msr: msr_read 277 = 0x7040607040600\n");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_msr: msr_write 12345678 = 0x100009abc (#GP)\n");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_inj_exception: #GP (0x0)\n");
	ASSERT_NE(at, NULL);
	at = find(at, "intr_info 0x80000b0d error_code 0x00000000");
	ASSERT_NE(at, NULL);
	at = find(at, "reason CR_ACCESS ");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_cr: cr_write 4 = 0x%lx\n", cr4);
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_hypercall: nr 0x1234 a0 0x1 a1 0x2 a2 0x3 a3 0x4\n");
	ASSERT_NE(at, NULL);
}

GUEST_CODE(memory, 64,
	"	movl $0x55, " STR(0x400000) "\n"
	"	movl $0xc0000000, %ebx\n"
	"	movw $0x1234, 8(%rbx); mov (%rbx), %eax\n"
	"	inw $0x71, %ax" DONE);

TEST_F(trace, memory_and_ports)
{
	struct kvm_run *run = self->vcpu.run;
	uint32_t value = 0x89abcdef;
	uint16_t port_value = 0x4321;
	const char *at;

	vm_load(&self->vm, CODE_GPA, memory);
	ASSERT_TRUE(set_events("", "1"));
	vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
	vcpu_run_to(&self->vcpu, KVM_EXIT_MMIO);
	memcpy(run->mmio.data, &value, 4);
	vcpu_run_to(&self->vcpu, KVM_EXIT_IO);
	memcpy(vcpu_io_data(&self->vcpu), &port_value, 2);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	ASSERT_TRUE(set_events("", "0"));
	EXPECT_EQ(vcpu_regs(&self->vcpu).rax, 0x89ab4321);

	at = find(read_trace(self), "reason EPT_VIOLATION ");
	ASSERT_NE(at, NULL);
	/* The exit qualification: a write, of the guest's own and not of its page walk. */
	at = find(read_trace(self), "kvm_page_fault: vcpu 0 rip 0x%lx address 0x%016lx "
		  "error_code 0x182\n", CODE_GPA, PAGE_GPA);
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_mmio: mmio write len 2 gpa 0xc0000008 val 0x1234\n");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_mmio: mmio unsatisfied-read len 4 gpa 0xc0000000 val 0x0\n");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_mmio: mmio read len 4 gpa 0xc0000000 val 0x89abcdef\n");
	ASSERT_NE(at, NULL);
	at = find(at, "kvm_pio: pio_read at 0x71 size 2 count 1 val 0x4321 ");
	ASSERT_NE(at, NULL);
}

GUEST_CODE(spin, 64,
	"1:	lea 1b(%rip), %rax; mov %rax, " REC_RESUME "; sti\n"
	"	outb %al, $" STR(PORT_SYNC) "; jmp 1b\n");

TEST_F(trace, interrupts)
{
	struct kvm_interrupt interrupt = { .irq = 31 };
	const char *at;

	vm_load(&self->vm, CODE_GPA, spin);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	ASSERT_TRUE(set_events("", "1"));
	vcpu_complete(&self->vcpu);
	xioctl(self->vcpu.fd, KVM_INTERRUPT, &interrupt);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	vcpu_complete(&self->vcpu);
	xioctl(self->vcpu.fd, KVM_NMI, 0);
	vcpu_run_to_port(&self->vcpu, PORT_SYNC);
	ASSERT_TRUE(set_events("", "0"));

	at = find(read_trace(self), "kvm_inj_virq: IRQ 0x1f");
	ASSERT_NE(at, NULL);
	at = find(at, "intr_info 0x8000001f error_code 0x00000000");
	ASSERT_NE(at, NULL);
	if (device_is_kvm_rs()) {
		at = find(at, "kvm_inj_nmi: vcpu 0\n");
		ASSERT_NE(at, NULL);
	}
	at = find(at, "intr_info 0x80000202 error_code 0x00000000");
	ASSERT_NE(at, NULL);
}

TEST_HARNESS_MAIN
