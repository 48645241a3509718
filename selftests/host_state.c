// SPDX-License-Identifier: GPL-2.0
/*
 * What a guest must not take from its client: the client's own breakpoints,
 * and the signal that nobody can block.
 */
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "kselftest_harness.h"
#include "vm.h"

GUEST_CODE(sync_loop, 64,
	"1:	cpuid\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");
/* The same with the guest's own breakpoint 0 armed, where nothing runs. */
GUEST_CODE(armed_loop, 64,
	"	movl $0x7000, %eax\n"
	"	movq %rax, %db0\n"
	"	movl $0x402, %eax\n"
	"	movq %rax, %db7\n"
	"1:	cpuid\n"
	"	outb %al, $" STR(PORT_SYNC) "\n"
	"	jmp 1b\n");
GUEST_CODE(spin, 64,
	"	sti\n"
	"1:	incq 0x100000\n"
	"	jmp 1b\n");

static volatile uint64_t watched;

static int watch_writes(volatile uint64_t *word)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.bp_type = HW_BREAKPOINT_W,
		.bp_addr = (uintptr_t)word,
		.bp_len = HW_BREAKPOINT_LEN_8,
		.exclude_kernel = 1,
		.exclude_hv = 1,
	};

	return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);
}

static void check_breakpoint(struct __test_metadata *_metadata, const char *code,
			     const char *end)
{
	struct vcpu vcpu;
	uint64_t hits = 0;
	unsigned int i;
	struct vm vm;
	int fd;

	fd = watch_writes(&watched);
	if (fd < 0)
		SKIP(return, "no hardware breakpoints: %s", strerror(errno));
	vm_create(&vm, VM_MEMORY);
	vcpu_start(&vcpu, &vm, MODE_LONG);
	__vm_load(&vm, CODE_GPA, code, end);

	watched = 1;
	ASSERT_EQ(read(fd, &hits, sizeof(hits)), sizeof(hits));
	ASSERT_EQ(hits, 1);
	for (i = 0; i < 10; i++) {
		vcpu_run_to_port(&vcpu, PORT_SYNC);
		watched = i;
	}
	ASSERT_EQ(read(fd, &hits, sizeof(hits)), sizeof(hits));
	EXPECT_EQ(hits, 11);

	close(fd);
	vcpu_destroy(&vcpu);
	vm_destroy(&vm);
}

/* A watchpoint of the client goes on to hit between its guest's turns. */
TEST(client_breakpoint_survives)
{
	check_breakpoint(_metadata, sync_loop, sync_loop_end);
}

/* Even if the guest has one of its own. */
TEST(client_breakpoint_survives_guest_breakpoint)
{
	check_breakpoint(_metadata, armed_loop, armed_loop_end);
}

/*
 * A client that asks for all signals to be blocked while its guest runs can
 * still be killed.
 */
TEST(kill_is_not_blocked)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} __attribute__((packed)) mask = { .head.len = 8, .set = ~0ULL };
	struct timespec pause = { .tv_nsec = 50 * 1000 * 1000 };
	int status, pid, i;

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		struct vcpu vcpu;
		struct vm vm;

		vm_create(&vm, VM_MEMORY);
		vcpu_start(&vcpu, &vm, MODE_LONG);
		vm_load(&vm, CODE_GPA, spin);
		xioctl(vcpu.fd, KVM_SET_SIGNAL_MASK, &mask);
		vcpu_run(&vcpu);
		_exit(1);
	}
	nanosleep(&pause, NULL);
	kill(pid, SIGKILL);
	for (i = 0; i < 40; i++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			break;
		nanosleep(&pause, NULL);
	}
	ASSERT_LT(i, 40);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_HARNESS_MAIN
