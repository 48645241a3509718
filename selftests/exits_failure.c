// SPDX-License-Identifier: GPL-2.0
/*
 * The ends of a guest that cannot go on: triple fault, guest state that VM
 * entry refuses, instructions at memory-mapped I/O that cannot be emulated,
 * and execution from addresses that have no memory.
 */
#include <signal.h>

#include "kselftest_harness.h"
#include "vm.h"

FIXTURE(exits_failure) {
	struct vm vm;
	struct vcpu vcpu;
};

FIXTURE_SETUP(exits_failure)
{
	vm_create(&self->vm, VM_MEMORY);
	vcpu_start(&self->vcpu, &self->vm, MODE_LONG);
}

FIXTURE_TEARDOWN(exits_failure)
{
	vcpu_destroy(&self->vcpu);
	vm_destroy(&self->vm);
}

#define DONE	"\n	outb %al, $" STR(PORT_DONE) "\n"

GUEST_CODE(raise_ud, 64, "movl $0x51, %ebx; ud2" DONE);
GUEST_CODE(finish, 64, "movl $0x52, %ebx" DONE);

/* An IDT without a limit: #UD, #GP, double fault, triple fault. */
TEST_F(exits_failure, triple_fault)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	sregs.idt.limit = 0;
	vcpu_set_sregs(&self->vcpu, &sregs);
	vm_load(&self->vm, CODE_GPA, raise_ud);
	vcpu_run_to(&self->vcpu, KVM_EXIT_SHUTDOWN);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 0x51);

	/* Given a sound state again, the vCPU runs again. */
	vm_load(&self->vm, CODE_GPA, finish);
	sregs.idt.limit = 32 * 16 - 1;
	vcpu_set_mode(&self->vcpu, MODE_LONG);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 0x52);
}

/* No stack for the handler, in 32-bit paged mode: the page fault's own. */
TEST_F(exits_failure, triple_fault_without_stack)
{
	struct kvm_regs regs = vcpu_regs(&self->vcpu);

	regs.rsp = 0x00007f0000000000;
	vcpu_set_regs(&self->vcpu, &regs);
	vm_load(&self->vm, CODE_GPA, raise_ud);
	vcpu_run_to(&self->vcpu, KVM_EXIT_SHUTDOWN);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rsp, 0x00007f0000000000);
}

/*
 * A CPU without unrestricted guest: the module looks at the segments' types
 * itself, and executes the guest in software.
 */
#define REQUIRE_UNRESTRICTED()						\
	do {								\
		if (module_parameter("unrestricted_guest") != 'Y')	\
			SKIP(return, "the state is executed in software"); \
	} while (0)

/*
 * State that VM entry checks and that KVM_SET_SREGS lets pass. The exit says
 * 0x80000021 (entry failure, invalid guest state), each time it is tried.
 */
static void check_fail_entry(struct __test_metadata *_metadata,
			     FIXTURE_DATA(exits_failure) *self)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);
	struct kvm_run *run = self->vcpu.run;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		vcpu_run_to(&self->vcpu, KVM_EXIT_FAIL_ENTRY);
		EXPECT_EQ(run->fail_entry.hardware_entry_failure_reason, 0x80000021);
		EXPECT_LT(run->fail_entry.cpu, sysconf(_SC_NPROCESSORS_CONF));
	}
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA);

	/* The host is none the worse, and neither is the vCPU. */
	sregs.ldt.unusable = 1;
	vcpu_set_sregs(&self->vcpu, &sregs);
	vcpu_set_mode(&self->vcpu, MODE_LONG);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 0x52);
}

TEST_F(exits_failure, entry_refuses_tr_type)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	REQUIRE_UNRESTRICTED();
	vm_load(&self->vm, CODE_GPA, finish);
	sregs.tr.type = 2;		/* an LDT */
	vcpu_set_sregs(&self->vcpu, &sregs);
	check_fail_entry(_metadata, self);
}

TEST_F(exits_failure, entry_refuses_cs_type)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	REQUIRE_UNRESTRICTED();
	vm_load(&self->vm, CODE_GPA, finish);
	sregs.cs.type = 0;		/* data, read-only */
	vcpu_set_sregs(&self->vcpu, &sregs);
	check_fail_entry(_metadata, self);
}

TEST_F(exits_failure, entry_refuses_ds_type)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	REQUIRE_UNRESTRICTED();
	vm_load(&self->vm, CODE_GPA, finish);
	sregs.ds.type = 9;		/* code that cannot be read */
	vcpu_set_sregs(&self->vcpu, &sregs);
	check_fail_entry(_metadata, self);
}

TEST_F(exits_failure, entry_refuses_ldtr_limit)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);

	vm_load(&self->vm, CODE_GPA, finish);
	sregs.ldt = sregs.tr;
	sregs.ldt.type = 2;
	sregs.ldt.present = 1;
	sregs.ldt.limit = 0x12345678;	/* low bits say G=0 */
	sregs.ldt.g = 0;
	vcpu_set_sregs(&self->vcpu, &sregs);
	check_fail_entry(_metadata, self);
}

#define DUMP	"/sys/module/kvm_rs/parameters/dump_invalid_vmcs"

/* What the kernel's log had since the last entry that was failed. */
static char log_text[1 << 16];

/* Fails an entry; returns whether the kernel's log has @line since then. */
static bool fails_with(FIXTURE_DATA(exits_failure) *self, const char *line)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	char record[1024];
	size_t used = 0;
	ssize_t n;

	if (fd < 0 || lseek(fd, 0, SEEK_END))
		die("/dev/kmsg: %s", strerror(errno));
	vcpu_run_to(&self->vcpu, KVM_EXIT_FAIL_ENTRY);
	while ((n = read(fd, record, sizeof(record) - 1)) > 0) {
		record[n] = 0;
		if (used + n < sizeof(log_text))
			used += sprintf(log_text + used, "%s", record);
	}
	log_text[used] = 0;
	close(fd);
	return strstr(log_text, line);
}

static void set_dump(char on)
{
	int fd = open(DUMP, O_WRONLY);

	if (fd < 0 || write(fd, &on, 1) != 1)
		die(DUMP ": %s", strerror(errno));
	close(fd);
}

/* The VMCS goes to the kernel's log only if asked for, and not each time. */
TEST_F(exits_failure, dump_invalid_vmcs)
{
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);
	char shown = 0;
	int fd;

	if (!device_is_kvm_rs())
		SKIP(return, "the dump of kvm_rs");
	REQUIRE_UNRESTRICTED();
	fd = open(DUMP, O_RDONLY);
	ASSERT_EQ(read(fd, &shown, 1), 1);
	close(fd);
	EXPECT_EQ(shown, 'N');
	sregs.tr.type = 2;
	vcpu_set_sregs(&self->vcpu, &sregs);
	EXPECT_FALSE(fails_with(self, "GUEST_RIP: 0x10000"));
	set_dump('1');
	EXPECT_TRUE(fails_with(self, "GUEST_RIP: 0x10000"));
	/* Where the host's perf drives no counters, nothing is switched for it. */
	if (access("/sys/bus/event_source/devices/cpu", F_OK)) {
		EXPECT_NE(strstr(log_text, "VM_ENTRY_MSR_LOAD_COUNT: 0x0\n"), NULL);
		EXPECT_NE(strstr(log_text, "VM_EXIT_MSR_LOAD_COUNT: 0x0\n"), NULL);
	}
	EXPECT_FALSE(fails_with(self, "GUEST_RIP: 0x10000"));
	set_dump('0');
}

/* Instructions that no emulator has, at an address without memory. */
#define AT_MMIO(name, text)						\
	GUEST_CODE(name, 64, "	movl $0xc0000000, %ebx\n" text DONE)
AT_MMIO(mmio_x87, "fldl (%rbx)");
AT_MMIO(mmio_crc32, "crc32l (%rbx), %eax");
AT_MMIO(mmio_paddd, "paddd (%rbx), %xmm0");

TEST_F(exits_failure, mmio_that_cannot_be_emulated)
{
	static const struct {
		const char *name, *start, *end;
	} cases[] = {
#define C(code) { #code, code, code##_end }
		C(mmio_x87), C(mmio_crc32), C(mmio_paddd),
	};
	struct kvm_run *run = self->vcpu.run;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		__vm_load(&self->vm, CODE_GPA, cases[i].start, cases[i].end);
		vcpu_set_mode(&self->vcpu, MODE_LONG);
		TH_LOG("%s", cases[i].name);
		vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
		EXPECT_EQ(run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
		EXPECT_GE(run->internal.ndata, 1);
		/* RIP stays at it, so that a debugger can show it. */
		EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA + 5);
	}
	/* And the vCPU can still run something else. */
	vm_load(&self->vm, CODE_GPA, finish);
	vcpu_set_mode(&self->vcpu, MODE_LONG);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
}

/* Who asked for it is told only; else the guest gets an exception, if it goes on as it is. */
TEST_F(exits_failure, failure_with_exception_and_without)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE };
	struct kvm_vcpu_events events;
	unsigned int on;

	cap.args[0] = 2;
	EXPECT_EQ(try_ioctl(self->vm.fd, KVM_ENABLE_CAP, (unsigned long)&cap), -EINVAL);
	vm_load(&self->vm, CODE_GPA, mmio_x87);
	for (on = 0; on < 3; on++) {
		cap.args[0] = on & 1;
		xioctl(self->vm.fd, KVM_ENABLE_CAP, &cap);
		vcpu_set_mode(&self->vcpu, MODE_LONG);
		vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
		xioctl(self->vcpu.fd, KVM_GET_VCPU_EVENTS, &events);
		EXPECT_EQ(events.exception.injected, !(on & 1));
		if (events.exception.injected)
			EXPECT_EQ(events.exception.nr, 6);
		if (on & 1) {
			vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
		} else {
			vcpu_run_to_port(&self->vcpu, PORT_EXCEPTION);
			EXPECT_EQ(vm_record(&self->vm)->vector, 6);
			EXPECT_EQ(vm_record(&self->vm)->rip, CODE_GPA + 5);
		}
	}
}

/* Fetching from an address that no slot covers cannot go anywhere. */
TEST_F(exits_failure, execute_without_memory)
{
	struct kvm_run *run = self->vcpu.run;

	vcpu_set_rip(&self->vcpu, MMIO_GPA + 0x123);
	vcpu_run_to(&self->vcpu, KVM_EXIT_INTERNAL_ERROR);
	EXPECT_EQ(run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, MMIO_GPA + 0x123);
}

static void on_alarm(int sig)
{
}

/*
 * The guest's page tables in memory that is not there. KVM tries for ever to
 * emulate its way out; the guest must not get anywhere, and a signal ends it.
 */
TEST_F(exits_failure, page_tables_without_memory)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	struct kvm_sregs sregs = vcpu_sregs(&self->vcpu);
	int ret;

	vm_load(&self->vm, CODE_GPA, finish);
	sregs.cr3 = MMIO_GPA;
	vcpu_set_sregs(&self->vcpu, &sregs);
	sigaction(SIGALRM, &sa, NULL);
	ualarm(20000, 20000);
	ret = vcpu_run(&self->vcpu);
	ualarm(0, 0);
	vcpu_dump(&self->vcpu, ret);
	EXPECT_EQ(ret ? ret : -EINTR, -EINTR);
	EXPECT_NE(self->vcpu.run->exit_reason, KVM_EXIT_IO);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 0);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rip, CODE_GPA);
}

/* A slot whose user memory is not mapped: EFAULT, and again until it is. */
TEST_F(exits_failure, slot_without_user_memory)
{
	char *p = memory_alloc(SZ_2M, SZ_2M);
	unsigned int i;

	ASSERT_EQ(vm_set_slot(&self->vm, 1, 0, 0x40000000, SZ_2M, p), 0);
	ASSERT_EQ(munmap(p, SZ_2M), 0);
	vcpu_set_rip(&self->vcpu, 0x40000000);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(vcpu_run(&self->vcpu), -EFAULT);
		EXPECT_EQ(vcpu_fault_is_at(&self->vcpu, 0x40000000), true);
	}
	ASSERT_EQ(mmap(p, SZ_2M, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), p);
	memcpy(p, finish, finish_end - finish);
	vcpu_run_to_port(&self->vcpu, PORT_DONE);
	EXPECT_EQ(vcpu_regs(&self->vcpu).rbx, 0x52);
}

TEST_HARNESS_MAIN
