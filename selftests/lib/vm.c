// SPDX-License-Identifier: GPL-2.0
/*
 * A guest in a few calls: see vm.h.
 */
#include <ctype.h>
#include <linux/membarrier.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "vm.h"

/* Four pages below the firmware, where no test has memory. */
#define TSS_ADDR	0xfffbc000UL

#define DEVICE_KVM_RS	"/dev/kvm-rs"
#define DEVICE_KVM	"/dev/kvm"

#define CR0_PE		(1UL << 0)
#define CR0_ET		(1UL << 4)
#define CR0_NE		(1UL << 5)
#define CR0_WP		(1UL << 16)
#define CR0_PG		(1UL << 31)
#define CR4_PSE		(1UL << 4)
#define CR4_PAE		(1UL << 5)
#define CR4_OSFXSR	(1UL << 9)
#define CR4_OSXMMEXCPT	(1UL << 10)
#define EFER_LME	(1UL << 8)
#define EFER_LMA	(1UL << 10)

#define PTE_TABLE	0x07UL		/* present, writable, user */
#define PTE_LARGE	0xe7UL		/* and accessed, dirty, large */

#define KSFT_FAIL_CODE	1
#define KSFT_SKIP_CODE	4

void __die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	fflush(stdout);
	exit(KSFT_FAIL_CODE);
}

const char *device_path(void)
{
	const char *path = getenv("KVM_RS_DEVICE");

	if (path && *path)
		return path;
	return access(DEVICE_KVM_RS, F_OK) ? DEVICE_KVM : DEVICE_KVM_RS;
}

bool device_is_kvm_rs(void)
{
	struct stat dev, rs;

	if (stat(device_path(), &dev) || stat(DEVICE_KVM_RS, &rs))
		return false;
	return dev.st_rdev == rs.st_rdev;
}

bool guests_can_page(void)
{
	return !device_is_kvm_rs() || module_parameter("ept") == 'Y';
}

int device_open(void)
{
	int fd = open(device_path(), O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	printf("# cannot open %s: %s\n", device_path(), strerror(errno));
	fflush(stdout);
	exit(errno == ENOENT ? KSFT_SKIP_CODE : KSFT_FAIL_CODE);
}

long try_ioctl(int fd, unsigned long request, unsigned long arg)
{
	long ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

long __xioctl(int fd, unsigned long request, unsigned long arg,
	      const char *name, const char *file, int line)
{
	long ret = try_ioctl(fd, request, arg);

	if (ret < 0)
		__die("# %s:%d: %s: %s\n", file, line, name, strerror(-ret));
	return ret;
}

void *memory_alloc(size_t size, size_t align)
{
	char *p, *start;

	p = mmap(NULL, size + align, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		die("mmap of %zu: %s", size, strerror(errno));
	start = (char *)(((uintptr_t)p + align - 1) & ~(align - 1));
	if (start > p)
		munmap(p, start - p);
	if (p + align > start)
		munmap(start + size, p + align - start);
	return start;
}

bool memory_is_huge(const void *p)
{
	char line[256];
	unsigned long start, end, kib;
	bool here = false, ret = false;
	FILE *f = fopen("/proc/self/smaps", "r");

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)p && (uintptr_t)p < end;
		else if (here && sscanf(line, "AnonHugePages: %lu", &kib) == 1)
			ret = kib >= 2048;
	}
	fclose(f);
	return ret;
}

int vm_set_slot(struct vm *vm, unsigned int slot, unsigned int flags,
		uint64_t gpa, uint64_t size, void *host)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};

	return try_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, (unsigned long)&region);
}

/*
 * One stub for each of the first 32 vectors, 16 bytes apart, then the common
 * part. An exception with a resume address goes on there; any other is
 * reported to the client and the guest stops.
 */
GUEST_CODE(exception_handlers, 64,
	".set vector, 0\n"
	".rept 32\n"
	".balign 16\n"
	".if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)\n"
	".else\n"
	"	pushq $0\n"
	".endif\n"
	"	pushq $vector\n"
	"	jmp exception_common\n"
	".set vector, vector + 1\n"
	".endr\n"
	".balign 16\n"
	"exception_common:\n"
	"	movq %rax, 0x3e38\n"
	"	incq 0x3e00\n"
	"	popq %rax\n"
	"	movq %rax, 0x3e08\n"
	"	popq %rax\n"
	"	movq %rax, 0x3e10\n"
	"	movq (%rsp), %rax\n"
	"	movq %rax, 0x3e18\n"
	"	movq 16(%rsp), %rax\n"
	"	movq %rax, 0x3e20\n"
	"	movq %cr2, %rax\n"
	"	movq %rax, 0x3e28\n"
	"	movq 0x3e30, %rax\n"
	"	testq %rax, %rax\n"
	"	jnz 1f\n"
	"2:	out %al, $" STR(PORT_EXCEPTION) "\n"
	"	hlt\n"
	"	jmp 2b\n"
	"1:	movq %rax, (%rsp)\n"
	"	movq $0, 0x3e30\n"
	"	movq 0x3e38, %rax\n"
	"	iretq\n");

static void write_gdt(struct vm *vm)
{
	static const uint64_t gdt[] = {
		[SEL_CODE64 / 8] = 0x00af9b000000ffff,
		[SEL_DATA / 8] = 0x00cf93000000ffff,
		[SEL_CODE32 / 8] = 0x00cf9b000000ffff,
		[SEL_CODE16 / 8] = 0x00009b000000ffff | (CODE_GPA << 16),
		[SEL_DATA16 / 8] = 0x000093000000ffff,
		[SEL_TSS / 8] = 0x0000890000000067 | (TSS_GPA << 16),
	};

	memcpy(vm->mem + GDT_GPA, gdt, sizeof(gdt));
}

static void write_idt(struct vm *vm)
{
	uint64_t *idt = (uint64_t *)(vm->mem + IDT_GPA);
	unsigned int vector;

	for (vector = 0; vector < 32; vector++) {
		uint64_t target = HANDLER_GPA + vector * 16;

		idt[vector * 2] = (target & 0xffff) | (SEL_CODE64 << 16) |
				  (0x8e00UL << 32) | ((target & 0xffff0000) << 32);
		idt[vector * 2 + 1] = target >> 32;
	}
	vm_load(vm, HANDLER_GPA, exception_handlers);
}

/* Identity tables of the first 4G for each paging mode. */
static void write_page_tables(struct vm *vm)
{
	uint64_t *pml4 = (uint64_t *)(vm->mem + LONG_PT_GPA);
	uint64_t *pdpt = pml4 + 512, *pd = pml4 + 1024;
	uint64_t *pae = (uint64_t *)(vm->mem + PAE_PT_GPA);
	uint32_t *pd32 = (uint32_t *)(vm->mem + PAGED_PT_GPA);
	unsigned int i;

	pml4[0] = (LONG_PT_GPA + 0x1000) | PTE_TABLE;
	for (i = 0; i < 4; i++) {
		pdpt[i] = (LONG_PT_GPA + 0x2000 + i * 0x1000) | PTE_TABLE;
		pae[i] = (PAE_PT_GPA + 0x1000 + i * 0x1000) | 1;
	}
	for (i = 0; i < 2048; i++) {
		pd[i] = (i * SZ_2M) | PTE_LARGE;
		pae[512 + i] = (i * SZ_2M) | PTE_LARGE;
	}
	for (i = 0; i < 1024; i++)
		pd32[i] = (i * SZ_4M) | PTE_LARGE;
}

void vm_create_empty(struct vm *vm)
{
	memset(vm, 0, sizeof(*vm));
	vm->dev = device_open();
	vm->fd = xioctl(vm->dev, KVM_CREATE_VM, 0);
}

void vm_create(struct vm *vm, size_t size)
{
	uint64_t identity_map = TSS_ADDR + 3 * PAGE;
	int ret;

	vm_create_empty(vm);
	/* A CPU without unrestricted guest needs these for real mode; others do not care. */
	try_ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_ADDR);
	try_ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, (unsigned long)&identity_map);
	vm->size = size;
	vm->mem = memory_alloc(size, SZ_2M);
	ret = vm_set_slot(vm, 0, 0, 0, size, vm->mem);
	if (ret)
		die("KVM_SET_USER_MEMORY_REGION: %s", strerror(-ret));
	write_gdt(vm);
	write_idt(vm);
	write_page_tables(vm);
}

void vm_destroy(struct vm *vm)
{
	close(vm->fd);
	close(vm->dev);
	if (vm->mem)
		munmap(vm->mem, vm->size);
	memset(vm, 0, sizeof(*vm));
}

void __vm_load(struct vm *vm, uint64_t gpa, const char *start, const char *end)
{
	if (gpa + (end - start) > vm->size)
		die("guest code of %td bytes does not fit at %#lx", end - start, gpa);
	memcpy(vm->mem + gpa, start, end - start);
}

struct exception_record *vm_record(struct vm *vm)
{
	return (struct exception_record *)(vm->mem + RECORD_GPA);
}

void vcpu_create(struct vcpu *vcpu, struct vm *vm, unsigned int id)
{
	vcpu->vm = vm;
	vcpu->fd = xioctl(vm->fd, KVM_CREATE_VCPU, id);
	vcpu->run_size = xioctl(vm->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
	vcpu->run = mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		die("mmap of the vCPU: %s", strerror(errno));
}

void vcpu_destroy(struct vcpu *vcpu)
{
	munmap(vcpu->run, vcpu->run_size);
	close(vcpu->fd);
}

#define MAX_CPUID	256
struct cpuid {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[MAX_CPUID];
};

void vcpu_set_supported_cpuid(struct vcpu *vcpu)
{
	vcpu_set_cpuid_without(vcpu, NULL, 0);
}

void vcpu_set_cpuid_without(struct vcpu *vcpu, const struct kvm_cpuid_entry2 *without,
			    unsigned int n)
{
	struct cpuid *cpuid = calloc(1, sizeof(*cpuid));
	unsigned int i, k;

	cpuid->head.nent = MAX_CPUID;
	xioctl(vcpu->vm->dev, KVM_GET_SUPPORTED_CPUID, cpuid);
	for (i = 0; i < cpuid->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entries[i];

		for (k = 0; k < n; k++) {
			if (e->function != without[k].function || e->index != without[k].index)
				continue;
			e->eax &= ~without[k].eax;
			e->ebx &= ~without[k].ebx;
			e->ecx &= ~without[k].ecx;
			e->edx &= ~without[k].edx;
		}
	}
	xioctl(vcpu->fd, KVM_SET_CPUID2, cpuid);
	free(cpuid);
}

/* Leaves whose registers are features. */
static bool is_features(const struct kvm_cpuid_entry2 *e)
{
	return e->function == 1 || e->function == 7 || e->function == 0x80000001 ||
	       e->function == 0x80000008;
}

/* Takes out of @common the features that the device does not have. */
static void keep_common(struct cpuid *common, const char *path)
{
	static struct cpuid one;
	int dev = open(path, O_RDWR | O_CLOEXEC);
	unsigned int i, k;

	if (dev < 0)
		return;
	one.head.nent = MAX_CPUID;
	xioctl(dev, KVM_GET_SUPPORTED_CPUID, &one);
	close(dev);
	if (!common->head.nent) {
		*common = one;
		return;
	}
	for (i = 0; i < common->head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &common->entries[i], *o = NULL;

		for (k = 0; k < one.head.nent; k++) {
			if (one.entries[k].function == e->function &&
			    one.entries[k].index == e->index)
				o = &one.entries[k];
		}
		if (!is_features(e))
			continue;
		/* EBX of leaves 1 and 0x80000001 is no set of features, nor is the rest of 0x80000008. */
		if (e->function == 7 || e->function == 0x80000008)
			e->ebx &= o ? o->ebx : 0;
		if (e->function == 0x80000008)
			continue;
		e->ecx &= o ? o->ecx : 0;
		e->edx &= o ? o->edx : 0;
	}
}

void vcpu_set_common_cpuid(struct vcpu *vcpu)
{
	static struct cpuid common;

	if (!common.head.nent) {
		keep_common(&common, DEVICE_KVM);
		keep_common(&common, DEVICE_KVM_RS);
	}
	xioctl(vcpu->fd, KVM_SET_CPUID2, &common);
}

static struct kvm_segment segment(unsigned int selector, uint64_t base,
				  uint32_t limit, unsigned int type)
{
	return (struct kvm_segment) {
		.selector = selector,
		.base = base,
		.limit = limit,
		.type = type,
		.present = 1,
		.s = 1,
		.g = limit > 0xfffff,
		.db = limit > 0xfffff,
	};
}

static void set_data_segments(struct kvm_sregs *sregs, struct kvm_segment data)
{
	sregs->ds = data;
	sregs->es = data;
	sregs->fs = data;
	sregs->gs = data;
	sregs->ss = data;
}

void vcpu_set_mode(struct vcpu *vcpu, enum mode mode)
{
	struct kvm_sregs sregs = vcpu_sregs(vcpu);
	struct kvm_regs regs = { .rip = CODE_GPA, .rsp = STACK_GPA, .rflags = 2 };

	if (mode >= MODE_PAGED && !guests_can_page()) {
		printf("# SKIP the guest would page, which needs EPT\n");
		fflush(stdout);
		exit(KSFT_SKIP_CODE);
	}
	sregs.cr0 = CR0_ET | CR0_NE;
	sregs.cr3 = 0;
	sregs.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
	sregs.efer = 0;
	if (mode == MODE_REAL) {
		sregs.cs = segment(CODE_GPA >> 4, CODE_GPA, 0xffff, 0xb);
		set_data_segments(&sregs, segment(0, 0, 0xffff, 3));
		regs.rip = 0;
		regs.rsp = 0x8000;
		/* Real mode fetches its vectors from IDTR too. */
		sregs.idt.base = 0;
		sregs.idt.limit = 0x3ff;
		goto out;
	}

	sregs.cr0 |= CR0_PE;
	sregs.cs = segment(SEL_CODE32, 0, 0xffffffff, 0xb);
	set_data_segments(&sregs, segment(SEL_DATA, 0, 0xffffffff, 3));
	sregs.tr = segment(SEL_TSS, TSS_GPA, 0x67, 0xb);
	sregs.tr.s = 0;
	sregs.gdt.base = GDT_GPA;
	sregs.gdt.limit = SEL_TSS + 15;
	sregs.idt.base = IDT_GPA;
	sregs.idt.limit = 32 * 8 - 1;
	switch (mode) {
	case MODE_PAGED:
		sregs.cr0 |= CR0_PG | CR0_WP;
		sregs.cr3 = PAGED_PT_GPA;
		sregs.cr4 |= CR4_PSE;
		break;
	case MODE_PAE:
		sregs.cr0 |= CR0_PG | CR0_WP;
		sregs.cr3 = PAE_PT_GPA;
		sregs.cr4 |= CR4_PAE;
		break;
	case MODE_LONG:
		sregs.cr0 |= CR0_PG | CR0_WP;
		sregs.cr3 = LONG_PT_GPA;
		sregs.cr4 |= CR4_PAE;
		sregs.efer = EFER_LME | EFER_LMA;
		sregs.cs = segment(SEL_CODE64, 0, 0xffffffff, 0xb);
		sregs.cs.l = 1;
		sregs.cs.db = 0;
		sregs.idt.limit = 32 * 16 - 1;
		break;
	default:
		break;
	}
out:
	vcpu_set_sregs(vcpu, &sregs);
	vcpu_set_regs(vcpu, &regs);
}

void vcpu_start(struct vcpu *vcpu, struct vm *vm, enum mode mode)
{
	vcpu_create(vcpu, vm, 0);
	vcpu_set_supported_cpuid(vcpu);
	vcpu_set_mode(vcpu, mode);
}

struct kvm_regs vcpu_regs(struct vcpu *vcpu)
{
	struct kvm_regs regs;

	xioctl(vcpu->fd, KVM_GET_REGS, &regs);
	return regs;
}

void vcpu_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs)
{
	xioctl(vcpu->fd, KVM_SET_REGS, regs);
}

struct kvm_sregs vcpu_sregs(struct vcpu *vcpu)
{
	struct kvm_sregs sregs;

	xioctl(vcpu->fd, KVM_GET_SREGS, &sregs);
	return sregs;
}

void vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
	xioctl(vcpu->fd, KVM_SET_SREGS, sregs);
}

void vcpu_set_rip(struct vcpu *vcpu, uint64_t rip)
{
	struct kvm_regs regs = vcpu_regs(vcpu);

	regs.rip = rip;
	vcpu_set_regs(vcpu, &regs);
}

struct one_msr {
	struct kvm_msrs header;
	struct kvm_msr_entry entry;
};

uint64_t vcpu_msr(struct vcpu *vcpu, uint32_t index)
{
	struct one_msr msr = { .header.nmsrs = 1, .entry.index = index };

	if (xioctl(vcpu->fd, KVM_GET_MSRS, &msr) != 1)
		die("KVM_GET_MSRS of %#x", index);
	return msr.entry.data;
}

void vcpu_set_msr(struct vcpu *vcpu, uint32_t index, uint64_t value)
{
	struct one_msr msr = {
		.header.nmsrs = 1,
		.entry = { .index = index, .data = value },
	};

	if (xioctl(vcpu->fd, KVM_SET_MSRS, &msr) != 1)
		die("KVM_SET_MSRS of %#x to %#lx", index, value);
}

struct kvm_cpuid_entry2 vcpu_cpuid(struct vcpu *vcpu, uint32_t leaf)
{
	struct kvm_cpuid_entry2 found = {};
	struct kvm_cpuid2 *cpuid;
	unsigned int i;

	cpuid = calloc(1, sizeof(*cpuid) + 256 * sizeof(cpuid->entries[0]));
	cpuid->nent = 256;
	xioctl(vcpu->fd, KVM_GET_CPUID2, cpuid);
	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == leaf && !cpuid->entries[i].index) {
			found = cpuid->entries[i];
			break;
		}
	}
	free(cpuid);
	return found;
}

int vcpu_run(struct vcpu *vcpu)
{
	return try_ioctl(vcpu->fd, KVM_RUN, 0);
}

void vcpu_complete(struct vcpu *vcpu)
{
	int ret = 0, tries;

	vcpu->run->immediate_exit = 1;
	/* A read-modify-write of MMIO has a second exit. */
	for (tries = 0; tries < 10 && ret != -EINTR; tries++)
		ret = vcpu_run(vcpu);
	vcpu->run->immediate_exit = 0;
	if (ret != -EINTR)
		die("KVM_RUN with immediate_exit: %d", ret);
}

bool vcpu_fault_is_at(struct vcpu *vcpu, uint64_t gpa)
{
	struct kvm_run *run = vcpu->run;

	if (run->exit_reason == KVM_EXIT_UNKNOWN)
		return true;
	return run->exit_reason == KVM_EXIT_MEMORY_FAULT &&
	       run->memory_fault.gpa / PAGE == gpa / PAGE &&
	       run->memory_fault.size == PAGE && !run->memory_fault.flags;
}

void *vcpu_io_data(struct vcpu *vcpu)
{
	return (char *)vcpu->run + vcpu->run->io.data_offset;
}

struct kvm_regs vcpu_call(struct vcpu *vcpu, uint64_t rip, uint64_t rdi, uint64_t rsi)
{
	struct kvm_regs regs = {
		.rip = rip, .rsp = STACK_GPA, .rflags = 2, .rdi = rdi, .rsi = rsi,
	};

	vcpu_set_regs(vcpu, &regs);
	vcpu_run_to_port(vcpu, PORT_DONE);
	vcpu_complete(vcpu);
	return vcpu_regs(vcpu);
}

void vcpu_dump(struct vcpu *vcpu, int error)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs regs = vcpu_regs(vcpu);
	unsigned int i;

	printf("# KVM_RUN %d (%s), exit reason %u, rip %#llx, rsp %#llx, rflags %#llx\n",
	       error, error < 0 ? strerror(-error) : "", run->exit_reason, regs.rip,
	       regs.rsp, regs.rflags);
	if (error)
		return;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		printf("# %s port %#x, size %u, count %u\n",
		       run->io.direction == KVM_EXIT_IO_OUT ? "out" : "in",
		       run->io.port, run->io.size, run->io.count);
		if (run->io.port == PORT_EXCEPTION && vcpu->vm->mem) {
			struct exception_record *r = vm_record(vcpu->vm);

			printf("# exception %lu, error %#lx, rip %#lx, cr2 %#lx\n",
			       r->vector, r->error, r->rip, r->cr2);
		}
		break;
	case KVM_EXIT_MMIO:
		printf("# mmio %s %#llx, %u bytes\n", run->mmio.is_write ? "write" : "read",
		       run->mmio.phys_addr, run->mmio.len);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		printf("# internal error %u:", run->internal.suberror);
		for (i = 0; i < run->internal.ndata && i < 16; i++)
			printf(" %#llx", run->internal.data[i]);
		printf("\n");
		break;
	case KVM_EXIT_FAIL_ENTRY:
		printf("# entry failed: %#llx\n",
		       run->fail_entry.hardware_entry_failure_reason);
		break;
	}
	fflush(stdout);
}

void __vcpu_run_to(struct vcpu *vcpu, unsigned int reason, const char *file, int line)
{
	int ret = vcpu_run(vcpu);

	if (ret || vcpu->run->exit_reason != reason) {
		vcpu_dump(vcpu, ret);
		__die("# %s:%d: expected exit reason %u\n", file, line, reason);
	}
}

void __vcpu_run_to_port(struct vcpu *vcpu, unsigned int port, const char *file, int line)
{
	__vcpu_run_to(vcpu, KVM_EXIT_IO, file, line);
	if (vcpu->run->io.port != port || vcpu->run->io.direction != KVM_EXIT_IO_OUT ||
	    vcpu->run->io.size != 1 || vcpu->run->io.count != 1) {
		vcpu_dump(vcpu, 0);
		__die("# %s:%d: expected an OUT to port %#x\n", file, line, port);
	}
}

long meminfo(const char *name)
{
	char line[256];
	size_t len = strlen(name);
	long value = -1;
	FILE *f = fopen("/proc/meminfo", "r");

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, len) && line[len] == ':') {
			value = atol(line + len + 1);
			break;
		}
	}
	fclose(f);
	return value;
}

/*
 * Pages neither in the buddy allocator nor on a per-CPU list. A page freed by
 * RCU, or by work that RCU starts, is waited for.
 */
long host_pages_used(void)
{
	long total = 0, count;
	char line[256];
	int i;
	FILE *f;

	for (i = 0; i < 3; i++) {
		syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
		usleep(20000);
	}
	f = fopen("/proc/sys/vm/drop_caches", "w");
	if (f) {
		fputs("3", f);
		fclose(f);
	}
	f = fopen("/proc/zoneinfo", "r");
	if (!f)
		die("/proc/zoneinfo: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, " pages free %ld", &count) == 1)
			total -= count;
		else if (sscanf(line, " count: %ld", &count) == 1)
			total -= count;
		else if (sscanf(line, " managed %ld", &count) == 1)
			total += count;
	}
	fclose(f);
	return total;
}

long module_stat(const char *name)
{
	FILE *file = fopen("/sys/kernel/debug/kvm-rs/stats", "r");
	size_t len = strlen(name);
	char line[128];
	long value = -1;

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, len) && line[len] == ' ')
			value = atol(line + len);
	fclose(file);
	return value;
}

long vm_stat(const struct vm *vm, const char *name)
{
	char path[200];
	FILE *file;
	long value;

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%d-%d/%s",
		 device_is_kvm_rs() ? "kvm-rs" : "kvm", (int)getpid(), vm->fd, name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%ld", &value) != 1)
		die("%s: %s", path, strerror(errno));
	fclose(file);
	return value;
}

int module_parameter(const char *name)
{
	int value = EOF;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s",
		 device_is_kvm_rs() ? "kvm_rs" : "kvm_intel", name);
	file = fopen(path, "r");
	if (file) {
		value = fgetc(file);
		fclose(file);
	}
	return value;
}
