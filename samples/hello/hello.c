// SPDX-License-Identifier: GPL-2.0
/*
 * The smallest client of KVM: hello [DEVICE]
 *
 * It runs two guests, one in real mode and one in 64-bit mode, each in a virtual machine of its own
 * with one CPU and 64 KiB of memory. A guest prints by writing bytes to a port and ends with HLT;
 * both make KVM_RUN return, and this program does what a PC's hardware would have done.
 *
 * A client works with three kinds of file descriptors: the device, a virtual machine, and a CPU.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY		0x10000	/* bytes of memory from guest-physical address 0 on */
#define CODE		0x1000	/* where the guest's code goes */
#define TABLES		0x2000	/* where the 64-bit guest's page tables go */
#define PORT		0xe9	/* what is written here is printed */

/* Both guests: for each character up to the NUL, out(PORT, character); then halt. */
#define PRINT_AND_HALT "1: lodsb; test %al, %al; jz 2f; out %al, $0xe9; jmp 1b; 2: hlt\n"

extern const char real_start[], real_end[], long_start[], long_end[];
asm(".pushsection .rodata\n"
    ".code16\n"
    "real_start: mov $(0x1000 + real_text - real_start), %si\n" PRINT_AND_HALT
    "real_text: .asciz \"Hello from real mode!\\n\"\n"
    "real_end:\n"
    ".code64\n"
    "long_start: lea long_text(%rip), %rsi\n" PRINT_AND_HALT
    "long_text: .asciz \"Hello from 64-bit mode!\\n\"\n"
    "long_end:\n"
    ".popsection\n");

/* An ioctl that ends the program when it fails. */
static int checked(int fd, unsigned long request, unsigned long arg, const char *name)
{
	int ret = ioctl(fd, request, arg);

	if (ret < 0)
		err(1, "%s", name);
	return ret;
}
#define IOCTL(fd, request, arg) checked(fd, request, (unsigned long)(arg), #request)

/* 64-bit mode: paging on, with the lowest 2 MiB mapped one to one, and a 64-bit code segment. */
static void set_long_mode(struct kvm_sregs *sregs, uint8_t *memory)
{
	uint64_t *tables = (uint64_t *)(memory + TABLES);

	tables[0] = (TABLES + 0x1000) | 3;	/* PML4 entry 0: next table; present, writable */
	tables[512] = (TABLES + 0x2000) | 3;	/* PDPT entry 0: the same */
	tables[1024] = 0 | 0x83;		/* page directory entry 0: a 2 MiB page at 0 */

	sregs->cr3 = TABLES;
	sregs->cr4 = 1 << 5;			/* PAE */
	sregs->cr0 = 1u << 31 | 1 << 5 | 1 << 4 | 1;	/* PG, NE, ET, PE */
	sregs->efer = 1 << 10 | 1 << 8;		/* LMA, LME */
	sregs->cs = (struct kvm_segment) {
		.selector = 8, .type = 11, .s = 1, .present = 1, .l = 1, .g = 1, .limit = ~0u,
	};
	sregs->ss = (struct kvm_segment) {
		.selector = 16, .type = 3, .s = 1, .present = 1, .db = 1, .g = 1, .limit = ~0u,
	};
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss;
}

/* Runs the virtual CPU until the guest halts. */
static void run(int vcpu, struct kvm_run *run)
{
	for (;;) {
		IOCTL(vcpu, KVM_RUN, 0);

		/* Why it returned stands in the page that KVM shares with us. */
		switch (run->exit_reason) {
		case KVM_EXIT_IO:
			if (run->io.direction == KVM_EXIT_IO_OUT && run->io.port == PORT)
				fwrite((char *)run + run->io.data_offset, run->io.size,
				       run->io.count, stdout);
			break;
		case KVM_EXIT_HLT:
			return;
		default:
			errx(1, "unexpected exit: reason %u", run->exit_reason);
		}
	}
}

/* Makes a virtual machine for the guest between @start and @end, and runs it. */
static void run_guest(int kvm, const char *start, const char *end, int is_long)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[100];
	} cpuid = { .head.nent = 100 };
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY };
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 /* a bit that is always set */ };
	struct kvm_sregs sregs;
	int rw = PROT_READ | PROT_WRITE, size = IOCTL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	int vm = IOCTL(kvm, KVM_CREATE_VM, 0), vcpu = IOCTL(vm, KVM_CREATE_VCPU, 0);
	struct kvm_run *shared = mmap(NULL, size, rw, MAP_SHARED, vcpu, 0);
	/* The guest's memory is memory of this program, which gives it back when it ends. */
	uint8_t *memory = mmap(NULL, MEMORY, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || shared == MAP_FAILED)
		err(1, "mmap");
	memcpy(memory + CODE, start, end - start);
	region.userspace_addr = (uintptr_t)memory;
	IOCTL(vm, KVM_SET_USER_MEMORY_REGION, &region);

	/* The virtual CPU has every feature that KVM offers; 64-bit mode is one. */
	IOCTL(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	IOCTL(vcpu, KVM_SET_CPUID2, &cpuid);

	IOCTL(vcpu, KVM_GET_SREGS, &sregs);
	if (is_long)
		set_long_mode(&sregs, memory);
	else	/* A CPU starts in real mode, but at the reset vector, just below 4 GiB. */
		sregs.cs.base = sregs.cs.selector = 0;
	IOCTL(vcpu, KVM_SET_SREGS, &sregs);
	IOCTL(vcpu, KVM_SET_REGS, &regs);

	run(vcpu, shared);

	munmap(shared, size);
	close(vcpu);
	close(vm);
}

int main(int argc, char **argv)
{
	const char *device = argc > 1 ? argv[1] : "/dev/kvm-rs";
	int kvm = open(device, O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		err(1, "%s", device);
	if (IOCTL(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		errx(1, "%s: not API version %d", device, KVM_API_VERSION);

	run_guest(kvm, real_start, real_end, 0);
	run_guest(kvm, long_start, long_end, 1);
	return 0;
}
