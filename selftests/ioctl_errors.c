// SPDX-License-Identifier: GPL-2.0
/*
 * What every ioctl answers to arguments that are wrong: bad pointers, sizes,
 * flags, numbers and fds. The same calls go to /dev/kvm-rs and to /dev/kvm in
 * one boot, and any difference fails.
 *
 * Ioctls marked OPTIONAL may be missing from kvm_rs (it then answers as to an
 * unknown number); one that is there must agree in every row.
 * IOCTL_ERRORS_TABLE=1 prints all rows, one "name kvm-rs kvm" a line.
 */
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "kselftest_harness.h"
#include "ioctl_errors.h"
#include "vm.h"

#define MAX_ROWS	20000
#define ABSENT		(-1000)		/* not there, which is allowed */

enum fd_kind { DEV, VM, VCPU };
static const char * const fd_names[] = { "device", "vm", "vcpu" };

/* What kvm_rs may answer in a row instead of what KVM does. */
enum excuse {
	STRICT,
	MAY_BE_ABSENT,		/* the ioctl is not there at all */
	MAY_BE_ZERO,		/* a capability or an MSR that is not there */
	MAY_BE_PART,		/* bits, of which some are not there */
	MAY_BE_UNKNOWN,		/* an ioctl not there on this kind of fd */
};

struct row {
	char name[92];
	enum excuse excuse;
	long value;
};

struct table {
	const char *path;
	struct row *rows;
	unsigned int count;
	struct vm vm;
	struct vcpu vcpu;
};

static char *buffer;		/* 64K that every ioctl may read and write */
static char *read_only;		/* a page of zeroes that none may write */
static char *last_bytes;	/* 4 bytes before a page that is not there */

static void __attribute__((format(printf, 4, 5)))
record(struct table *t, enum excuse excuse, long value, const char *fmt, ...)
{
	struct row *row = &t->rows[t->count++];
	va_list args;

	if (t->count >= MAX_ROWS)
		die("too many rows");
	va_start(args, fmt);
	vsnprintf(row->name, sizeof(row->name), fmt, args);
	va_end(args);
	row->value = value;
	row->excuse = excuse;
}

/* An fd that was not to be had is recorded as 0, and closed. */
static long fd_result(long ret)
{
	if (ret >= 0)
		close(ret);
	return ret < 0 ? ret : 0;
}

static void open_vm(struct table *t, struct vm *vm)
{
	memset(vm, 0, sizeof(*vm));
	vm->dev = open(t->path, O_RDWR | O_CLOEXEC);
	if (vm->dev < 0)
		die("%s: %s", t->path, strerror(errno));
	vm->fd = xioctl(vm->dev, KVM_CREATE_VM, 0);
}

static void fresh(struct table *t)
{
	open_vm(t, &t->vm);
	vcpu_create(&t->vcpu, &t->vm, 0);
	vcpu_set_common_cpuid(&t->vcpu);
}

static void drop(struct table *t)
{
	vcpu_destroy(&t->vcpu);
	vm_destroy(&t->vm);
}

static int fd_of(struct table *t, enum fd_kind kind)
{
	return kind == DEV ? t->vm.dev : kind == VM ? t->vm.fd : t->vcpu.fd;
}

/*
 * Every ioctl with a pointer argument, on its own kind of fd with pointers
 * that lead nowhere, and on the other kinds.
 */
enum { REQUIRED, OPTIONAL };

static const struct request {
	const char *name;
	enum fd_kind fd;
	unsigned long number;
	bool pointer;
	bool optional;
} requests[] = {
#define R(fd, name, pointer, optional)	{ #name, fd, name, pointer, optional }
	IOCTL_LIST(R)
};

/* Whether the ioctl is known at all: an unknown one says so to anything. */
static bool present(struct table *t, const struct request *r)
{
	long ret = try_ioctl(fd_of(t, r->fd), r->number, 8);

	if (!r->pointer || r->fd == VM)
		return ret != -ENOTTY;
	/* Unknown vCPU and device ioctls are EINVAL, in KVM as well. */
	return ret != -ENOTTY && (ret == -EFAULT || ret != -EINVAL);
}

static bool have(struct table *t, unsigned long number)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		if (requests[i].number == number)
			return present(t, &requests[i]);
	}
	return false;
}

/*
 * Calls that a test of an optional ioctl makes go through here: absent ones
 * are recorded as that.
 */
static void optional(struct table *t, enum fd_kind fd, unsigned long number,
		     const char *name, const char *what, void *arg)
{
	long ret = ABSENT;

	if (have(t, number))
		ret = try_ioctl(fd_of(t, fd), number, (unsigned long)arg);
	record(t, MAY_BE_ABSENT, ret > 0 ? 1 : ret, "%s %s", name, what);
}
#define OPT(fd, name, what, arg)	optional(t, fd, name, #name, what, arg)

static void test_pointers(struct table *t)
{
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(requests); i++) {
		const struct request *r = &requests[i];
		const struct {
			const char *name;
			unsigned long value;
		} pointers[] = {
			{ "null", 0 },
			{ "one", 1 },
			{ "unmapped", 0x7ead00000000 },
			{ "kernel", 0xffff888000000000 },
			{ "not canonical", 0x8000000000000000 },
			{ "last", ~0UL },
			{ "4 bytes before the end", (unsigned long)last_bytes },
			{ "read-only", (unsigned long)read_only },
		};
		bool is_present;

		fresh(t);
		is_present = !r->optional || present(t, r);
		for (k = 0; k < 3; k++) {
			if (k == r->fd)
				continue;
			/* Some numbers exist on two kinds of fd. */
			memset(buffer, 0, 65536);
			record(t, MAY_BE_UNKNOWN,
			       fd_result(try_ioctl(fd_of(t, k), r->number,
						   (unsigned long)buffer)),
			       "%s on %s fd", r->name, fd_names[k]);
		}
		for (k = 0; r->pointer && k < ARRAY_SIZE(pointers); k++) {
			/* Zeroes are an argument like another: only read it. */
			if (pointers[k].value == (unsigned long)read_only &&
			    !(_IOC_DIR(r->number) & _IOC_READ))
				continue;
			record(t, r->optional ? MAY_BE_ABSENT : STRICT, is_present ?
			       try_ioctl(fd_of(t, r->fd), r->number, pointers[k].value) :
			       ABSENT, "%s pointer %s", r->name, pointers[k].name);
		}
		drop(t);
	}
}

static void test_unknown(struct table *t)
{
	static const unsigned long numbers[] = {
		_IO(KVMIO, 0x0f), _IO(KVMIO, 0x3f), _IO(KVMIO, 0x50), _IO(KVMIO, 0xfe),
		_IO(KVMIO, 0xff), _IOR(KVMIO, 0xfd, long), _IOW(KVMIO, 0xfd, long),
		/* Right numbers, wrong size or direction. */
		_IO(KVMIO, 0x81), _IOR(KVMIO, 0x81, char[8]), _IOW(KVMIO, 0x81, struct kvm_regs),
		_IOW(KVMIO, 0x82, char[8]), _IOR(KVMIO, 0x82, struct kvm_regs),
		_IOW(KVMIO, 0x46, char[24]), _IOR(KVMIO, 0x80, int), _IOW(KVMIO, 0x41, int),
		_IOWR(KVMIO, 0x05, char[16]), _IOW(KVMIO, 0x90, char[16]), _IOR(KVMIO, 0, int),
		/* Of others: terminals, block devices, files, nobody. */
		0x5401, 0x5413, 0x541b, 0x1260, 0x5450, 0, 0xffffffff, 0x12345678,
		_IO(0xad, 0x00), _IO(0xaf, 0x80),
	};
	unsigned int i, k;

	fresh(t);
	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		for (k = 0; k < 3; k++) {
			memset(buffer, 0, 65536);
			record(t, STRICT, try_ioctl(fd_of(t, k), numbers[i], (long)buffer),
			       "unknown %#lx on %s fd", numbers[i], fd_names[k]);
			record(t, STRICT, try_ioctl(fd_of(t, k), numbers[i], 0),
			       "unknown %#lx null on %s fd", numbers[i], fd_names[k]);
		}
	}
	drop(t);
}

static void test_system(struct table *t)
{
	static const unsigned long args[] = { 1, 8, 0x1000, 1UL << 32, ~0UL };
	static const long extensions[] = {
		-1, -2, 0x7fffffff, 0x80000000, 1UL << 32, 249, 250, 260, 300, 512, 1000, 10000,
	};
	unsigned int i, k;
	long ret;

	fresh(t);
	record(t, STRICT, try_ioctl(t->vm.dev, KVM_GET_API_VERSION, 0), "GET_API_VERSION");
	ret = try_ioctl(t->vm.dev, KVM_GET_VCPU_MMAP_SIZE, 0);
	record(t, STRICT, ret < 0 ? ret : ret % PAGE, "GET_VCPU_MMAP_SIZE");
	for (i = 0; i < ARRAY_SIZE(args); i++) {
		record(t, STRICT, try_ioctl(t->vm.dev, KVM_GET_API_VERSION, args[i]),
		       "GET_API_VERSION %#lx", args[i]);
		record(t, STRICT, try_ioctl(t->vm.dev, KVM_GET_VCPU_MMAP_SIZE, args[i]),
		       "GET_VCPU_MMAP_SIZE %#lx", args[i]);
		record(t, STRICT, fd_result(try_ioctl(t->vm.dev, KVM_CREATE_VM, args[i])),
		       "CREATE_VM %#lx", args[i]);
	}
	for (i = 0; i < 64; i++)
		record(t, STRICT, fd_result(try_ioctl(t->vm.dev, KVM_CREATE_VM, 1UL << i)),
		       "CREATE_VM 1 << %u", i);
	for (i = 0; i < ARRAY_SIZE(extensions); i++) {
		record(t, STRICT, try_ioctl(t->vm.dev, KVM_CHECK_EXTENSION, extensions[i]),
		       "CHECK_EXTENSION %#lx on device fd", extensions[i]);
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_CHECK_EXTENSION, extensions[i]),
		       "CHECK_EXTENSION %#lx on vm fd", extensions[i]);
	}
	/* What is claimed has KVM's value; what is not, is 0. */
	for (i = 0; i < 249; i++) {
		for (k = 0; k < 2; k++)
			record(t, i == KVM_CAP_DISABLE_QUIRKS2 ? MAY_BE_PART : MAY_BE_ZERO,
			       try_ioctl(fd_of(t, k), KVM_CHECK_EXTENSION, i),
			       "capability %u on %s fd", i, fd_names[k]);
	}
	drop(t);
}

static void test_files(struct table *t)
{
	struct { const char *name; enum fd_kind fd; int prot, flags; long offset, size; } maps[] = {
		{ "device", DEV, PROT_READ, MAP_SHARED, 0, PAGE },
		{ "vm", VM, PROT_READ, MAP_SHARED, 0, PAGE },
		{ "vcpu read-only", VCPU, PROT_READ, MAP_SHARED, 0, PAGE },
		{ "vcpu private", VCPU, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, PAGE },
		{ "vcpu second page", VCPU, PROT_READ | PROT_WRITE, MAP_SHARED, PAGE, PAGE },
		{ "vcpu past the end", VCPU, PROT_READ, MAP_SHARED, 0x100000, PAGE },
		{ "vcpu much", VCPU, PROT_READ, MAP_SHARED, 0, 0x100000 },
		{ "vcpu unaligned", VCPU, PROT_READ, MAP_SHARED, 1, PAGE },
		{ "vcpu nothing", VCPU, PROT_READ, MAP_SHARED, 0, 0 },
		{ "vcpu executable", VCPU, PROT_READ | PROT_EXEC, MAP_SHARED, 0, PAGE },
	};
	unsigned int i;
	char c = 0;
	void *p;
	int fd;

	fresh(t);
	for (i = 0; i < ARRAY_SIZE(maps); i++) {
		p = mmap(NULL, maps[i].size, maps[i].prot, maps[i].flags,
			 fd_of(t, maps[i].fd), maps[i].offset);
		record(t, STRICT, p == MAP_FAILED ? -errno : 0, "mmap %s", maps[i].name);
		if (p != MAP_FAILED)
			munmap(p, maps[i].size);
	}
	for (i = 0; i < 3; i++) {
		fd = fd_of(t, i);
		record(t, STRICT, read(fd, &c, 1) < 0 ? -errno : 0, "read %s", fd_names[i]);
		record(t, STRICT, write(fd, &c, 1) < 0 ? -errno : 0, "write %s", fd_names[i]);
		/* The kernel crate's misc device has no llseek: ESPIPE where /dev/kvm says 0. */
		if (i > 0)
			record(t, STRICT, lseek(fd, 10, SEEK_SET) < 0 ? -errno : 0,
			       "lseek %s", fd_names[i]);
		record(t, STRICT, ftruncate(fd, 0) < 0 ? -errno : 0, "ftruncate %s", fd_names[i]);
		record(t, STRICT, fsync(fd) < 0 ? -errno : 0, "fsync %s", fd_names[i]);
		record(t, STRICT, fcntl(fd, F_GETFD), "close-on-exec %s", fd_names[i]);
		record(t, STRICT, fcntl(fd, F_GETFL) & O_ACCMODE, "access mode %s", fd_names[i]);
	}
	for (i = 0; i < 3; i++) {
		static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR | O_NONBLOCK };

		fd = open(t->path, modes[i]);
		record(t, STRICT, fd < 0 ? -errno : 0, "open mode %#x", modes[i]);
		record(t, STRICT, try_ioctl(fd, KVM_GET_API_VERSION, 0),
		       "GET_API_VERSION opened %#x", modes[i]);
		record(t, STRICT, fd_result(try_ioctl(fd, KVM_CREATE_VM, 0)),
		       "CREATE_VM opened %#x", modes[i]);
		close(fd);
	}
	drop(t);
}

static void test_create_vcpu(struct table *t)
{
	static const unsigned long ids[] = {
		0, 0, 1, 1, 255, 256, 1023, 1024, 4094, 4095, 4096, 4097, 65535,
		0x7fffffff, 0x80000000, 0xffffffff, 1UL << 32, (1UL << 32) + 7, ~0UL,
	};
	int fds[ARRAY_SIZE(ids)], n = 0;
	unsigned int i;
	struct vm vm;
	long ret;

	open_vm(t, &vm);
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		ret = try_ioctl(vm.fd, KVM_CREATE_VCPU, ids[i]);
		record(t, STRICT, ret < 0 ? ret : 0, "CREATE_VCPU %u: %#lx", i, ids[i]);
		if (ret >= 0)
			fds[n++] = ret;
	}
	/* An id stays taken when its fd is closed. */
	while (n)
		close(fds[--n]);
	record(t, STRICT, fd_result(try_ioctl(vm.fd, KVM_CREATE_VCPU, 0)),
	       "CREATE_VCPU 0 after close");
	vm_destroy(&vm);

	/* Without an fd to be had the vCPU must not stay either. */
	open_vm(t, &vm);
	{
		struct rlimit old, none = { 0, 0 };

		getrlimit(RLIMIT_NOFILE, &old);
		none.rlim_max = old.rlim_max;
		setrlimit(RLIMIT_NOFILE, &none);
		ret = fd_result(try_ioctl(vm.fd, KVM_CREATE_VCPU, 3));
		record(t, STRICT, ret, "CREATE_VCPU without fds");
		ret = fd_result(try_ioctl(vm.dev, KVM_CREATE_VM, 0));
		record(t, STRICT, ret, "CREATE_VM without fds");
		setrlimit(RLIMIT_NOFILE, &old);
		record(t, STRICT, fd_result(try_ioctl(vm.fd, KVM_CREATE_VCPU, 3)),
		       "CREATE_VCPU again with fds");
	}
	vm_destroy(&vm);
}

/* Rings of written pages, before there is a vCPU and after. */
static void test_dirty_ring(struct table *t)
{
	static const struct {
		uint32_t cap, flags;
		uint64_t size;
	} rows[] = {
		{ KVM_CAP_DIRTY_LOG_RING, 0, 0 },
		{ KVM_CAP_DIRTY_LOG_RING, 0, 512 },
		{ KVM_CAP_DIRTY_LOG_RING, 0, 4095 },
		{ KVM_CAP_DIRTY_LOG_RING, 0, 12288 },
		{ KVM_CAP_DIRTY_LOG_RING, 0, 1UL << 21 },
		{ KVM_CAP_DIRTY_LOG_RING, 0, 1UL << 32 },
		{ KVM_CAP_DIRTY_LOG_RING, 1, 3 },
		{ KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0, 0 },
		{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 1, 1UL << 40 | 1UL << 20 },
		{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 0, 1UL << 20 },
		{ KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 0, 1UL << 21 },
		{ KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 0, 0 },
	};
	struct kvm_clear_dirty_log clear = { .slot = 99, .first_page = 1 };
	struct kvm_dirty_log log = { .slot = 1 << 20 };
	unsigned int i, turn;
	struct vm vm;

	for (turn = 0; turn < 2; turn++) {
		open_vm(t, &vm);
		if (turn)
			close(xioctl(vm.fd, KVM_CREATE_VCPU, 0));
		record(t, STRICT, try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0),
		       "RESET_DIRTY_RINGS %u without", turn);
		for (i = 0; i < ARRAY_SIZE(rows); i++) {
			struct kvm_enable_cap cap = {
				.cap = rows[i].cap,
				.flags = rows[i].flags,
				.args = { rows[i].size },
			};

			record(t, STRICT, try_ioctl(vm.fd, KVM_ENABLE_CAP, (unsigned long)&cap),
			       "dirty ring %u, %u: %#lx", turn, i, rows[i].size);
		}
		record(t, STRICT, try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 0),
		       "RESET_DIRTY_RINGS %u", turn);
		record(t, STRICT, try_ioctl(vm.fd, KVM_RESET_DIRTY_RINGS, 1),
		       "RESET_DIRTY_RINGS %u with an argument", turn);
		record(t, STRICT, try_ioctl(vm.fd, KVM_GET_DIRTY_LOG, (unsigned long)&log),
		       "GET_DIRTY_LOG %u of a ring", turn);
		record(t, STRICT, try_ioctl(vm.fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&clear),
		       "CLEAR_DIRTY_LOG %u of a ring", turn);
		vm_destroy(&vm);
	}
}

static void test_nx_huge_pages(struct table *t)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_VM_DISABLE_NX_HUGE_PAGES };
	struct vm vm;
	unsigned int i;

	open_vm(t, &vm);
	for (i = 0; i < 8; i++) {
		cap.args[0] = i & 1;
		cap.flags = i >> 1 & 1;
		if (i == 4)
			close(xioctl(vm.fd, KVM_CREATE_VCPU, 0));
		record(t, STRICT, try_ioctl(vm.fd, KVM_ENABLE_CAP, (unsigned long)&cap),
		       "disable NX huge pages %u", i);
	}
	vm_destroy(&vm);
}

#define H		0x100000000000UL	/* userspace_addr: relative to memory */
#define DIRTY		KVM_MEM_LOG_DIRTY_PAGES
#define RO		KVM_MEM_READONLY
#define M		0x100000UL

/* Slot 0 is 1M of memory at 1M when each of these comes. */
static const struct region {
	const char *name;
	uint32_t slot, flags;
	uint64_t gpa, size, host;
} regions[] = {
	{ "new", 1, 0, 4 * M, M, H },
	{ "same memory twice", 1, 0, 8 * M, M, H },
	{ "below and adjacent", 1, 0, 0, M, H },
	{ "above and adjacent", 1, 0, 2 * M, M, H },
	{ "overlap first page", 1, 0, 0, M + PAGE, H },
	{ "overlap last page", 1, 0, 2 * M - PAGE, M, H },
	{ "overlap inside", 1, 0, M + PAGE, PAGE, H },
	{ "overlap around", 1, 0, 0, 4 * M, H },
	{ "overlap same", 1, 0, M, M, H },
	{ "delete", 0, 0, M, 0, H },
	{ "delete elsewhere", 0, 0, 0, 0, 0 },
	{ "delete unaligned address", 0, 0, M + 1, 0, H },
	{ "delete unaligned host", 0, 0, M, 0, H + 1 },
	{ "delete with flags", 0, DIRTY, M, 0, H },
	{ "delete with bad flags", 0, 1U << 31, M, 0, H },
	{ "delete missing", 1, 0, M, 0, H },
	{ "delete missing far", 1, 0, 1UL << 60, 0, H },
	{ "same again", 0, 0, M, M, H },
	{ "larger", 0, 0, M, 2 * M, H },
	{ "smaller", 0, 0, M, PAGE, H },
	{ "other host memory", 0, 0, M, M, H + PAGE },
	{ "move", 0, 0, 16 * M, M, H },
	{ "move a page, overlapping itself", 0, 0, M + PAGE, M, H },
	{ "move and other memory", 0, 0, 16 * M, M, H + PAGE },
	{ "move and larger", 0, 0, 16 * M, 2 * M, H },
	{ "log dirty pages", 0, DIRTY, M, M, H },
	{ "log dirty pages and move", 0, DIRTY, 16 * M, M, H },
	{ "new and log dirty pages", 1, DIRTY, 4 * M, M, H },
	{ "becomes read-only", 0, RO, M, M, H },
	{ "new read-only", 1, RO, 4 * M, M, H },
	{ "new read-only, dirty", 1, RO | DIRTY, 4 * M, M, H },
	{ "flag 2", 1, 4, 4 * M, M, H },
	{ "flag 3", 1, 8, 4 * M, M, H },
	{ "flag 16", 1, 1 << 16, 4 * M, M, H },
	{ "flag 31", 1, 1U << 31, 4 * M, M, H },
	{ "all flags", 1, ~0U, 4 * M, M, H },
	{ "unaligned address", 1, 0, 4 * M + 1, M, H },
	{ "unaligned address 0x800", 1, 0, 4 * M + 0x800, M, H },
	{ "unaligned size", 1, 0, 4 * M, M + 1, H },
	{ "size 1", 1, 0, 4 * M, 1, H },
	{ "unaligned host", 1, 0, 4 * M, M, H + 1 },
	{ "unaligned host 0x800", 1, 0, 4 * M, M, H + 0x800 },
	{ "host null", 1, 0, 4 * M, M, 0 },
	{ "host unmapped", 1, 0, 4 * M, M, 0x7ead00000000 },
	{ "host last user page", 1, 0, 4 * M, PAGE, 0x7fffffffe000 },
	{ "host past last user page", 1, 0, 4 * M, PAGE, 0x7ffffffff000 },
	{ "host across the end", 1, 0, 4 * M, M, 0x7fffffffe000 },
	{ "host kernel", 1, 0, 4 * M, M, 0xffff888000000000 },
	{ "host not canonical", 1, 0, 4 * M, M, 0x0000800000000000 },
	{ "host high", 1, 0, 4 * M, M, 0x8000000000000000 },
	{ "host wraps", 1, 0, 4 * M, M, -PAGE },
	{ "host tagged", 1, 0, 4 * M, M, 0x0200000000001000 },
	{ "address wraps", 1, 0, -PAGE, 2 * PAGE, H },
	{ "address ends at 2^64", 1, 0, -PAGE, PAGE, H },
	{ "size 2^63", 1, 0, 4 * M, 1UL << 63, H },
	{ "size all", 1, 0, 0, -PAGE, H },
	{ "size 2^43", 1, 0, 4 * M, 1UL << 43, 0 },
	{ "size 2^43 less a page", 1, 0, 4 * M, (1UL << 43) - PAGE, 0 },
	{ "size 2^40", 1, 0, 1UL << 40, 1UL << 40, 0 },
	{ "address 2^32", 1, 0, 1UL << 32, M, H },
	{ "address 2^38", 1, 0, 1UL << 38, M, H },
	{ "address 2^39", 1, 0, 1UL << 39, M, H },
	{ "address 2^40 less 1M", 1, 0, (1UL << 40) - M, M, H },
	{ "address 2^40", 1, 0, 1UL << 40, M, H },
	{ "address 2^45", 1, 0, 1UL << 45, M, H },
	{ "address 2^46", 1, 0, 1UL << 46, M, H },
	{ "address 2^48", 1, 0, 1UL << 48, M, H },
	{ "address 2^51", 1, 0, 1UL << 51, M, H },
	{ "address 2^52", 1, 0, 1UL << 52, M, H },
	{ "address 2^63", 1, 0, 1UL << 63, M, H },
	{ "slot 508", 508, 0, 4 * M, M, H },
	{ "slot 32763", 32763, 0, 4 * M, M, H },
	{ "slot 32764", 32764, 0, 4 * M, M, H },
	{ "slot 32765", 32765, 0, 4 * M, M, H },
	{ "slot 32767", 32767, 0, 4 * M, M, H },
	{ "slot 32768", 32768, 0, 4 * M, M, H },
	{ "slot 65535", 65535, 0, 4 * M, M, H },
	{ "address space 1", 0x10000, 0, M, M, H },
	{ "address space 1, slot 1", 0x10001, 0, 4 * M, M, H },
	{ "address space 2", 0x20000, 0, 4 * M, M, H },
	{ "address space 65535", 0xffff0000, 0, 4 * M, M, H },
	{ "slot all bits", ~0U, 0, 4 * M, M, H },
	{ "delete slot 32764", 32764, 0, 4 * M, 0, H },
	{ "nothing at all", 0, 0, 0, 0, 0 },
};

static void test_regions(struct table *t)
{
	char *mem = memory_alloc(4 * M, SZ_2M);
	bool dirty, smm, ro, memfd;
	unsigned int i, two;

	fresh(t);
	dirty = have(t, KVM_GET_DIRTY_LOG);
	smm = try_ioctl(t->vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) > 1;
	ro = try_ioctl(t->vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
	memfd = try_ioctl(t->vm.fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD) > 0;
	drop(t);
	for (i = 0; i < ARRAY_SIZE(regions); i++) {
		const struct region *r = &regions[i];
		uint64_t host = r->host - H < M ? (uintptr_t)mem + (r->host - H) : r->host;
		uint32_t flags = r->flags == ~0U ? 0 : r->flags;
		bool may_lack = flags & (DIRTY | RO | KVM_MEM_GUEST_MEMFD) ||
				r->slot >> 16 == 1;
		bool lacks = (flags & DIRTY && !dirty) || (flags & RO && !ro) ||
			     (flags & KVM_MEM_GUEST_MEMFD && !memfd) ||
			     (r->slot >> 16 == 1 && !smm);

		for (two = 0; two < 2; two++) {
			struct kvm_userspace_memory_region2 region = {
				.slot = r->slot,
				.flags = r->flags,
				.guest_phys_addr = r->gpa,
				.memory_size = r->size,
				.userspace_addr = host,
				.guest_memfd = -1,
			};
			struct vm vm;
			long ret;

			open_vm(t, &vm);
			ret = vm_set_slot(&vm, 0, 0, M, M, mem);
			if (ret)
				die("slot 0: %s", strerror(-ret));
			ret = try_ioctl(vm.fd, two ? KVM_SET_USER_MEMORY_REGION2 :
					KVM_SET_USER_MEMORY_REGION, (long)&region);
			record(t, may_lack ? MAY_BE_ABSENT : STRICT, lacks ? ABSENT : ret,
			       "SET_USER_MEMORY_REGION%s %s", two ? "2" : "", r->name);
			/* Whether slot 0 is still as it was. */
			ret = vm_set_slot(&vm, 9, 0, M + PAGE, PAGE, mem);
			record(t, may_lack ? MAY_BE_ABSENT : STRICT, lacks ? ABSENT : ret,
			       "SET_USER_MEMORY_REGION%s %s, slot 0 then", two ? "2" : "",
			       r->name);
			vm_destroy(&vm);
		}
	}
	/* Fields that only the second form has. */
	for (i = 0; i < 4; i++) {
		struct kvm_userspace_memory_region2 region = {
			.slot = 1, .guest_phys_addr = M, .memory_size = M,
			.userspace_addr = (uintptr_t)mem,
		};
		struct vm vm;

		open_vm(t, &vm);
		region.flags = i == 3 ? KVM_MEM_GUEST_MEMFD : 0;
		region.guest_memfd = i == 3 ? ~0U : 0;
		region.guest_memfd_offset = i == 1 ? 1 : 0;
		memset(region.pad2, i == 2 ? 0xff : 0, sizeof(region.pad2));
		record(t, i == 3 ? MAY_BE_ABSENT : STRICT, i == 3 && !memfd ? ABSENT :
		       try_ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION2, (long)&region),
		       "SET_USER_MEMORY_REGION2 extra %u", i);
		vm_destroy(&vm);
	}
	munmap(mem, 4 * M);
}

/* Eventfds that writes signal: what may be asked for, what collides, what is there. */
static void test_ioeventfd(struct table *t)
{
	static const struct kvm_ioeventfd rows[] = {
		{ .addr = 0x100, .len = 4 },
		{ .addr = 0x100, .len = 4 },
		{ .addr = 0x100, .len = 4, .datamatch = 1, .flags = 1 },
		{ .addr = 0x100, .len = 2, .datamatch = 1, .flags = 1 },
		{ .addr = 0x100, .len = 2, .datamatch = 1, .flags = 1 },
		{ .addr = 0x100, .len = 2, .datamatch = 2, .flags = 1 },
		{ .addr = 0x100, .len = 2 },
		{ .addr = 0x100 },
		{ .addr = 0x101, .len = 1 },
		{ .addr = 0x200 },
		{ .addr = 0x200, .len = 8 },
		{ .addr = 0x200, .flags = 2 },
		{ .addr = 0x200, .flags = 8 },
		{ .addr = 0x200, .flags = 8 },
		{ .addr = 0x200, .flags = 2 | 8 },
		{ .addr = 0x100, .len = 4, .flags = 2 },
		{ .addr = 0x100, .len = 4, .datamatch = 1, .flags = 1 | 2 },
		{ .addr = 0x300, .flags = 1 },
		{ .addr = 0x300, .len = 3 },
		{ .addr = 0x300, .len = 5 },
		{ .addr = 0x300, .len = 16 },
		{ .addr = 0x300, .len = ~0U },
		{ .addr = 0x300, .len = 4, .flags = 16 },
		{ .addr = 0x300, .len = 4, .flags = 1U << 31 },
		{ .addr = ~0UL },
		{ .addr = ~0UL, .len = 1 },
		{ .addr = ~0UL - 1, .len = 1 },
		{ .addr = ~0UL - 7, .len = 8 },
		{ .addr = 0x10000, .len = 1, .flags = 2 },
		{ .addr = 0x300, .len = 4, .fd = -1 },
		{ .addr = 0x300, .len = 3, .fd = -1 },
		{ .addr = 0x300, .len = 4, .fd = 1 },
	};
	int fds[2] = { eventfd(0, EFD_CLOEXEC), open("/dev/null", O_RDWR | O_CLOEXEC) };
	unsigned int i, off;

	fresh(t);
	for (off = 0; have(t, KVM_IOEVENTFD) && off < 3; off++) {
		for (i = 0; i < ARRAY_SIZE(rows); i++) {
			struct kvm_ioeventfd request = rows[i];

			if (request.fd >= 0)
				request.fd = fds[request.fd];
			request.flags |= off ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0;
			record(t, STRICT, try_ioctl(t->vm.fd, KVM_IOEVENTFD, (long)&request),
			       "IOEVENTFD %u, %s %u", i, off ? "off" : "on", off);
		}
	}
	drop(t);
	close(fds[0]);
	close(fds[1]);
}

/* Files of guest memory, and slots that ask for pieces of one of two pages. */
static void test_guest_memfd(struct table *t)
{
	static const struct {
		uint64_t size, flags;
	} files[] = {
		{ PAGE, 0 }, { PAGE, 1 }, { PAGE, 2 }, { PAGE, 3 }, { PAGE, 4 }, { PAGE, 1UL << 63 },
		{ PAGE, ~0UL }, { 0, 0 }, { 0, 3 }, { 1, 0 }, { PAGE - 1, 3 }, { PAGE + 1, 3 },
		{ M, 3 }, { 1UL << 40, 3 }, { 1UL << 62, 0 }, { INT64_MAX & -PAGE, 0 },
		{ 1UL << 63, 0 }, { -PAGE, 0 }, { ~0UL, 0 },
	};
	static const struct {
		uint64_t size, offset;
		uint32_t flags;
		bool other;
	} pieces[] = {
		{ PAGE, 0, 0 }, { 2 * PAGE, 0, 0 }, { PAGE, PAGE, 0 }, { PAGE, 2 * PAGE, 0 },
		{ 3 * PAGE, 0, 0 }, { 2 * PAGE, PAGE, 0 }, { PAGE, 1, 0 }, { PAGE, -PAGE, 0 },
		{ 2 * PAGE, -PAGE, 0 }, { PAGE, 1UL << 62, 0 }, { PAGE, 0, KVM_MEM_READONLY },
		{ PAGE, 0, KVM_MEM_LOG_DIRTY_PAGES }, { PAGE, 0, 8 }, { 0, 0, 0 },
		{ PAGE, 0, 0, true },
	};
	unsigned int i, again;
	struct vm vm, other;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		struct kvm_create_guest_memfd file = {
			.size = files[i].size, .flags = files[i].flags,
			.reserved = { i % 2 ? ~0UL : 0 },
		};

		open_vm(t, &vm);
		record(t, STRICT,
		       fd_result(try_ioctl(vm.fd, KVM_CREATE_GUEST_MEMFD, (long)&file)),
		       "CREATE_GUEST_MEMFD %u: 0x%lx, flags 0x%lx", i, files[i].size,
		       files[i].flags);
		vm_destroy(&vm);
	}
	for (i = 0; i < ARRAY_SIZE(pieces); i++) {
		struct kvm_create_guest_memfd file = { .size = 2 * PAGE, .flags = i % 4 };
		struct kvm_userspace_memory_region2 region = {
			.slot = 1, .flags = KVM_MEM_GUEST_MEMFD | pieces[i].flags,
			.guest_phys_addr = M, .memory_size = pieces[i].size,
			.guest_memfd_offset = pieces[i].offset,
		};

		open_vm(t, &vm);
		open_vm(t, &other);
		region.guest_memfd = xioctl(pieces[i].other ? other.fd : vm.fd,
					    KVM_CREATE_GUEST_MEMFD, &file);
		/* The same slot twice, then another that is not in its way, or is; then it goes. */
		for (again = 0; again < 5; again++) {
			if (again == 2)
				region.slot = 2;
			if (again == 3)
				region.guest_phys_addr = 4 * M;
			if (again == 4)
				region.memory_size = 0;
			record(t, STRICT,
			       try_ioctl(vm.fd, KVM_SET_USER_MEMORY_REGION2, (long)&region),
			       "a slot of a file, %u, step %u", i, again);
		}
		close(region.guest_memfd);
		vm_destroy(&other);
		vm_destroy(&vm);
	}
}

/* Eventfds that interrupt, with no interrupt controller in the kernel and with local APICs. */
static void test_irqfd(struct table *t)
{
	static const struct {
		unsigned int fd, gsi, flags, resample;
	} rows[] = {
		{ 0, 5, 2, 1 }, { 0, 5, 2, 3 }, { 3, 5, 2, 3 }, { 0, 5, 2, 2 },
		{ 0, 5, 0 }, { 0, 5, 0 }, { 0, 6, 0 }, { 1, 5, 0 }, { 1, 5, 1 }, { 1, 5, 0 },
		{ 0, 6, 1 }, { 0, 5, 0 }, { 0, 5, 1 }, { 0, 5, 1 }, { 0, 5, 0 },
		{ 2, 5, 0 }, { 2, 5, 1 }, { 3, 5, 0 }, { 3, 5, 1 },
		{ 0, 5, 4 }, { 0, 5, 5 }, { 0, 5, 1U << 31 }, { 0, 5, 3, 3 },
		{ 0, 4095, 0 }, { 0, 4095, 1 }, { 0, 4096, 0 }, { 0, 4096, 1 },
		{ 0, ~0U, 0 }, { 0, ~0U, 1 },
	};
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	unsigned int i, chip;
	int fds[4];

	for (chip = 0; have(t, KVM_IRQFD) && chip < 2; chip++) {
		open_vm(t, &t->vm);
		if (chip)
			xioctl(t->vm.fd, KVM_ENABLE_CAP, &split);
		for (i = 0; i < 2; i++)
			fds[i] = eventfd(0, EFD_CLOEXEC);
		fds[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
		fds[3] = -1;
		for (i = 0; i < ARRAY_SIZE(rows); i++) {
			struct kvm_irqfd request = {
				.fd = fds[rows[i].fd], .gsi = rows[i].gsi,
				.flags = rows[i].flags, .resamplefd = fds[rows[i].resample],
			};

			record(t, STRICT, try_ioctl(t->vm.fd, KVM_IRQFD, (long)&request),
			       "IRQFD %u, %s", i, chip ? "split irqchip" : "no irqchip");
		}
		for (i = 0; i < 3; i++)
			close(fds[i]);
		vm_destroy(&t->vm);
	}
}

/* Zones of coalesced I/O, memory that is mapped ahead, and a limit on tables. */
static void test_ranges(struct table *t)
{
	static const struct {
		uint64_t addr;
		uint32_t size, pio;
	} zones[] = {
		{ 4 * M, PAGE, 0 }, { 4 * M, PAGE, 0 }, { 4 * M + 1, 3, 0 }, { 0x3f8, 8, 1 },
		{ 0, 0, 0 }, { 0, 0, 1 }, { M, PAGE, 0 }, { -PAGE, 2 * PAGE, 0 },
		{ 1UL << 40, ~0U, 1 }, { 0, 4, 2 }, { 0, 4, ~0U },
	};
	static const struct {
		uint64_t gpa, size, flags;
		bool hole;
	} ranges[] = {
		{ 0, PAGE }, { 0, M }, { PAGE, M }, { M, PAGE }, { 0, M + PAGE },
		{ 0, 0 }, { 1, PAGE }, { 0, 1 }, { PAGE, PAGE, 1 }, { PAGE, PAGE, 1UL << 63 },
		{ -PAGE, PAGE }, { -PAGE, 2 * PAGE }, { 0, 1UL << 63 }, { 1UL << 50, PAGE },
		{ 0, PAGE, 0, true }, { 0, M, 0, true }, { 2 * M, M }, { 3 * M, M },
	};
	static const unsigned long limits[] = {
		0, 1, 63, 64, 65, 1 << 20, ~0U, 1UL << 32, (1UL << 32) + 64, ~0UL,
	};
	char *mem = memory_alloc(4 * M, SZ_2M);
	unsigned int i, on;

	fresh(t);
	for (on = 0; have(t, KVM_REGISTER_COALESCED_MMIO) && on < 2; on++) {
		for (i = 0; i < ARRAY_SIZE(zones); i++) {
			struct kvm_coalesced_mmio_zone zone = {
				.addr = zones[i].addr, .size = zones[i].size, .pio = zones[i].pio,
			};

			record(t, STRICT,
			       try_ioctl(t->vm.fd, on ? KVM_UNREGISTER_COALESCED_MMIO :
					 KVM_REGISTER_COALESCED_MMIO, (long)&zone),
			       "%sREGISTER_COALESCED_MMIO %u", on ? "UN" : "", i);
		}
	}
	for (i = 0; have(t, KVM_SET_NR_MMU_PAGES) && i < ARRAY_SIZE(limits); i++)
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_SET_NR_MMU_PAGES, limits[i]),
		       "SET_NR_MMU_PAGES %#lx", limits[i]);
	for (i = 0; have(t, KVM_PRE_FAULT_MEMORY) && i < ARRAY_SIZE(ranges); i++) {
		struct kvm_pre_fault_memory range = {
			.gpa = ranges[i].gpa, .size = ranges[i].size, .flags = ranges[i].flags,
		};

		/* A page that the client does not have; its slot reaches behind the memory. */
		if (vm_set_slot(&t->vm, 0, 0, 0, M, mem) || vm_set_slot(&t->vm, 1, 0, 2 * M, 2 * M, mem + 2 * M))
			die("slots");
		if (mprotect(mem + (ranges[i].hole ? 0 : 3 * M), PAGE, PROT_NONE))
			die("mprotect: %s", strerror(errno));
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_PRE_FAULT_MEMORY, (long)&range),
		       "PRE_FAULT_MEMORY %u", i);
		record(t, STRICT, range.gpa, "PRE_FAULT_MEMORY %u: address left", i);
		record(t, STRICT, range.size, "PRE_FAULT_MEMORY %u: size left", i);
		if (mprotect(mem, 4 * M, PROT_READ | PROT_WRITE))
			die("mprotect: %s", strerror(errno));
	}
	drop(t);
	munmap(mem, 4 * M);
}

/* SREGS: one change to a sound state, and what is in force then. */
static void try_sregs(struct table *t, const struct kvm_sregs *base,
		      const struct kvm_sregs *sregs, const char *what, unsigned int n)
{
	struct kvm_sregs now;
	long ret;

	vcpu_set_sregs(&t->vcpu, base);
	ret = try_ioctl(t->vcpu.fd, KVM_SET_SREGS, (long)sregs);
	record(t, STRICT, ret, "SET_SREGS %s %u", what, n);
	now = vcpu_sregs(&t->vcpu);
	record(t, STRICT, now.cr0, "SET_SREGS %s %u: cr0", what, n);
	record(t, STRICT, now.cr4, "SET_SREGS %s %u: cr4", what, n);
	record(t, STRICT, now.efer, "SET_SREGS %s %u: efer", what, n);
	record(t, STRICT, ret && memcmp(&now, base, sizeof(now)),
	       "SET_SREGS %s %u: changed though refused", what, n);
}

static void test_sregs(struct table *t)
{
	static const char * const names[] = { "real", "paged", "long" };
	static const enum mode modes[] = { MODE_REAL, MODE_PAGED, MODE_LONG };
	static const struct { uint64_t cr0, cr4, efer; bool l, db; } combos[] = {
		{ 0x80000001, 0x00, 0x000, 0, 1 },
		{ 0x80000000, 0x00, 0x000, 0, 1 },
		{ 0x20000001, 0x00, 0x000, 0, 1 },	/* NW without CD */
		{ 0x60000001, 0x00, 0x000, 0, 1 },
		{ 0x00000001, 0x20, 0x100, 0, 1 },	/* LME, not yet paging */
		{ 0x00000001, 0x20, 0x500, 0, 1 },	/* LMA without paging */
		{ 0x00000001, 0x20, 0x400, 0, 1 },
		{ 0x80000001, 0x20, 0x100, 0, 1 },	/* paging, LME, no LMA */
		{ 0x80000001, 0x20, 0x400, 0, 1 },
		{ 0x80000001, 0x20, 0x500, 0, 1 },
		{ 0x80000001, 0x20, 0x500, 1, 0 },
		{ 0x80000001, 0x20, 0x500, 1, 1 },
		{ 0x80000001, 0x00, 0x500, 1, 0 },	/* without PAE */
		{ 0x80000000, 0x20, 0x500, 1, 0 },
		{ 0x00000000, 0x20, 0x100, 0, 0 },
		{ 0x80000001, 0x20, 0x000, 1, 0 },
		{ 0x00000001, 0x00, 0x000, 1, 0 },
		{ 0x80000001, 0x20020, 0x500, 1, 0 },	/* PCIDE */
		{ 0x80000001, 0x20020, 0x000, 0, 1 },
	};
	struct kvm_sregs base, sregs;
	unsigned int m, bit, i;

	for (m = 0; m < ARRAY_SIZE(modes); m++) {
		char name[32];

		fresh(t);
		vcpu_set_mode(&t->vcpu, modes[m]);
		base = vcpu_sregs(&t->vcpu);
		for (bit = 0; bit < 64; bit++) {
			snprintf(name, sizeof(name), "%s cr0 bit", names[m]);
			sregs = base;
			sregs.cr0 ^= 1UL << bit;
			try_sregs(t, &base, &sregs, name, bit);
			snprintf(name, sizeof(name), "%s cr4 bit", names[m]);
			sregs = base;
			sregs.cr4 ^= 1UL << bit;
			try_sregs(t, &base, &sregs, name, bit);
			snprintf(name, sizeof(name), "%s efer bit", names[m]);
			sregs = base;
			sregs.efer ^= 1UL << bit;
			try_sregs(t, &base, &sregs, name, bit);
			snprintf(name, sizeof(name), "%s cr3 bit", names[m]);
			sregs = base;
			sregs.cr3 ^= 1UL << bit;
			try_sregs(t, &base, &sregs, name, bit);
			snprintf(name, sizeof(name), "%s apic_base bit", names[m]);
			sregs = base;
			sregs.apic_base ^= 1UL << bit;
			try_sregs(t, &base, &sregs, name, bit);
		}
		for (i = 0; i < 20; i++) {
			snprintf(name, sizeof(name), "%s cr8", names[m]);
			sregs = base;
			sregs.cr8 = i < 17 ? i : 1UL << (i * 3);
			try_sregs(t, &base, &sregs, name, i);
			record(t, STRICT, vcpu_sregs(&t->vcpu).cr8, "SET_SREGS %s: cr8 %u",
			       names[m], i);
		}
		for (i = 0; i < ARRAY_SIZE(combos); i++) {
			snprintf(name, sizeof(name), "%s combination", names[m]);
			sregs = base;
			sregs.cr0 = combos[i].cr0 | 0x10;
			sregs.cr4 = combos[i].cr4;
			sregs.efer = combos[i].efer;
			sregs.cs.l = combos[i].l;
			sregs.cs.db = combos[i].db;
			try_sregs(t, &base, &sregs, name, i);
		}
		drop(t);
	}
	/* Pending interrupts in the bitmap. */
	for (i = 0; i < 4; i++) {
		fresh(t);
		sregs = vcpu_sregs(&t->vcpu);
		sregs.interrupt_bitmap[i] = i == 2 ? ~0UL : 1UL << 33;
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_SREGS, (long)&sregs),
		       "SET_SREGS interrupt %u", i);
		base = vcpu_sregs(&t->vcpu);
		for (bit = 0; bit < 4; bit++)
			record(t, STRICT, base.interrupt_bitmap[bit],
			       "SET_SREGS interrupt %u: word %u", i, bit);
		drop(t);
	}
}

static void test_regs(struct table *t)
{
	static const uint64_t flags[] = { 0, 2, ~0UL, 0x20202, 0x8d7, 1UL << 33, 0x10002 };
	struct kvm_regs regs;
	unsigned int i;

	fresh(t);
	/* The state after a reset. */
	regs = vcpu_regs(&t->vcpu);
	record(t, STRICT, regs.rip, "reset rip");
	record(t, STRICT, regs.rflags, "reset rflags");
	record(t, STRICT, regs.rsp, "reset rsp");
	record(t, STRICT, regs.rdx, "reset rdx");
	{
		struct kvm_sregs s = vcpu_sregs(&t->vcpu);
		const struct kvm_segment *segments = &s.cs;

		for (i = 0; i < 8; i++) {
			record(t, STRICT, segments[i].base, "reset segment %u base", i);
			record(t, STRICT, segments[i].limit, "reset segment %u limit", i);
			record(t, STRICT, segments[i].selector | segments[i].type << 16 |
			       segments[i].present << 20 | segments[i].dpl << 21 |
			       segments[i].db << 23 | segments[i].s << 24 |
			       segments[i].l << 25 | segments[i].g << 26 |
			       segments[i].avl << 27 | segments[i].unusable << 28,
			       "reset segment %u rights", i);
		}
		record(t, STRICT, s.cr0, "reset cr0");
		record(t, STRICT, s.cr4, "reset cr4");
		record(t, STRICT, s.efer, "reset efer");
		record(t, STRICT, s.apic_base, "reset apic_base");
		record(t, STRICT, s.gdt.limit, "reset gdt limit");
		record(t, STRICT, s.idt.limit, "reset idt limit");
		record(t, STRICT, t->vcpu.run->exit_reason, "reset exit reason");
		record(t, STRICT, t->vcpu.run->apic_base, "reset run apic_base");
	}
	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		regs.rflags = flags[i];
		regs.rip = flags[i] << 12;
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_REGS, (long)&regs),
		       "SET_REGS rflags %#lx", flags[i]);
		record(t, STRICT, vcpu_regs(&t->vcpu).rflags, "SET_REGS rflags %#lx: then",
		       flags[i]);
		record(t, STRICT, vcpu_regs(&t->vcpu).rip, "SET_REGS rip %#lx: then",
		       flags[i] << 12);
	}
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_RUN, 1), "RUN with an argument");
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_RUN, (long)buffer), "RUN with a pointer");
	drop(t);
	/* No memory at all at the reset vector. */
	fresh(t);
	record(t, STRICT, vcpu_run(&t->vcpu), "RUN without memory");
	record(t, STRICT, t->vcpu.run->exit_reason, "RUN without memory: exit reason");
	record(t, STRICT, t->vcpu.run->internal.suberror, "RUN without memory: suberror");
	drop(t);
}

static void test_cpuid(struct table *t)
{
	static const uint32_t counts[] = { 0, 1, 5, 256, 257, 300, 1U << 30, ~0U };
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)buffer;
	unsigned int i;
	long ret;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		fresh(t);
		memset(buffer, 0, 65536);
		cpuid->nent = counts[i];
		ret = try_ioctl(t->vm.dev, KVM_GET_SUPPORTED_CPUID, (long)cpuid);
		record(t, STRICT, ret, "GET_SUPPORTED_CPUID %u", counts[i]);
		record(t, STRICT, ret ? cpuid->nent : cpuid->nent > 5,
		       "GET_SUPPORTED_CPUID %u: then", counts[i]);
		memset(buffer, 0, 65536);
		cpuid->nent = counts[i];
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_CPUID2, (long)cpuid),
		       "SET_CPUID2 %u", counts[i]);
		memset(buffer, 0, 65536);
		cpuid->nent = counts[i];
		ret = try_ioctl(t->vcpu.fd, KVM_GET_CPUID2, (long)cpuid);
		record(t, STRICT, ret, "GET_CPUID2 %u", counts[i]);
		memset(buffer, 0, 65536);
		cpuid->nent = counts[i];
		OPT(VCPU, KVM_SET_CPUID, "count", cpuid);
		drop(t);
	}
	/* Linear address widths that no CPU has. */
	for (i = 46; i < 60; i++) {
		fresh(t);
		memset(buffer, 0, 65536);
		cpuid->nent = 1;
		cpuid->entries[0].function = 0x80000008;
		cpuid->entries[0].eax = i << 8 | 39;
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_CPUID2, (long)cpuid),
		       "SET_CPUID2 linear width %u", i);
		drop(t);
	}
	/* Entries in part beyond what can be read. */
	fresh(t);
	memset(last_bytes - 60, 0, 64);
	cpuid = (struct kvm_cpuid2 *)(last_bytes - 44);
	cpuid->nent = 2;
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_CPUID2, (long)cpuid),
	       "SET_CPUID2 past the end of memory");
	cpuid->nent = 256;
	record(t, STRICT, try_ioctl(t->vm.dev, KVM_GET_SUPPORTED_CPUID, (long)cpuid),
	       "GET_SUPPORTED_CPUID past the end of memory");
	cpuid->nent = 256;
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_CPUID2, (long)cpuid),
	       "GET_CPUID2 past the end of memory");
	drop(t);
}

static long one_msr(struct table *t, unsigned long request, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	return try_ioctl(t->vcpu.fd, request, (long)&msrs);
}

static void test_msrs(struct table *t)
{
	static const uint32_t counts[] = { 0, 1, 2, 256, 257, 1000, 1U << 31, ~0U };
	static const struct { uint32_t index; uint64_t good, bad; } known[] = {
		{ 0xc0000080, 0x000, 1UL << 40 },		/* EFER */
		{ 0xc0000081, 0x23001000000000, 0 },		/* STAR */
		{ 0xc0000082, 0xffffffff81000000, 1UL << 60 },	/* LSTAR */
		{ 0xc0000083, 0xffffffff81000000, 1UL << 60 },	/* CSTAR */
		{ 0xc0000084, 0x47700, 0 },			/* SYSCALL mask */
		{ 0xc0000100, 0x7f0000000000, 1UL << 60 },	/* FS base */
		{ 0xc0000101, 0x7f0000000000, 1UL << 60 },	/* GS base */
		{ 0xc0000102, 0x7f0000000000, 1UL << 60 },
		{ 0x174, 0x10, 0 },				/* SYSENTER */
		{ 0x175, 0xffffffff81000000, 1UL << 60 },
		{ 0x176, 0xffffffff81000000, 1UL << 60 },
		{ 0x277, 0x0007040600070406, 2 },		/* PAT */
		{ 0x10, 0, 0 },					/* TSC */
	};
	static const uint32_t others[] = {
		0, 1, 0x12345678, 0xc0009999, 0x40000000, 0xffffffff,
		0x4b564d00, 0x1b, 0x3a, 0x3b, 0x8b, 0xfe, 0xce, 0x1a0, 0x1d9, 0x2ff, 0x200, 0x250,
		0x400, 0x179, 0x17a, 0x480, 0xc0010015, 0x6e0, 0xda0, 0x140, 0x34, 0x48, 0x49,
	};
	struct kvm_msrs *msrs = (struct kvm_msrs *)buffer;
	unsigned int i, k;

	fresh(t);
	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		memset(buffer, 0, 65536);
		for (k = 0; k < 256; k++)
			msrs->entries[k].index = 0x174;
		msrs->nmsrs = counts[i];
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_MSRS, (long)msrs),
		       "GET_MSRS %u", counts[i]);
		msrs->nmsrs = counts[i];
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_MSRS, (long)msrs),
		       "SET_MSRS %u", counts[i]);
	}
	/* The count is how many were done before the first that failed. */
	memset(buffer, 0, 65536);
	msrs->nmsrs = 5;
	for (i = 0; i < 5; i++)
		msrs->entries[i].index = i == 3 ? 0x12345678 : 0x174;
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_MSRS, (long)msrs), "GET_MSRS fourth of 5");
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_MSRS, (long)msrs), "SET_MSRS fourth of 5");
	msrs = (struct kvm_msrs *)(last_bytes - 20);
	memset(msrs, 0, 24);
	msrs->nmsrs = 3;
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_MSRS, (long)msrs), "GET_MSRS past memory");
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_MSRS, (long)msrs), "SET_MSRS past memory");

	for (i = 0; i < ARRAY_SIZE(known); i++) {
		record(t, STRICT, one_msr(t, KVM_GET_MSRS, known[i].index, 0),
		       "GET_MSRS %#x", known[i].index);
		record(t, STRICT, one_msr(t, KVM_SET_MSRS, known[i].index, known[i].good),
		       "SET_MSRS %#x good", known[i].index);
		if (known[i].bad)
			record(t, STRICT, one_msr(t, KVM_SET_MSRS, known[i].index, known[i].bad),
			       "SET_MSRS %#x bad", known[i].index);
	}
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		record(t, i >= 6 ? MAY_BE_ZERO : STRICT, one_msr(t, KVM_GET_MSRS, others[i], 0),
		       "GET_MSRS %#x", others[i]);
		record(t, i >= 6 ? MAY_BE_ZERO : STRICT, one_msr(t, KVM_SET_MSRS, others[i], 0xdeadbeefdeadbeef),
		       "SET_MSRS %#x", others[i]);
	}
	drop(t);
}

static void test_vcpu_small(struct table *t)
{
	static const uint32_t lengths[] = { 0, 4, 7, 8, 9, 16, 128, ~0U };
	static const uint32_t vectors[] = { 0, 31, 32, 255, 256, 0x80000000, ~0U };
	unsigned int i;

	for (i = 0; i < 14; i++) {
		struct kvm_mp_state state = { .mp_state = i < 12 ? i : i == 12 ? 100 : ~0U };

		fresh(t);
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_MP_STATE, (long)&state),
		       "SET_MP_STATE %#x", state.mp_state);
		memset(&state, 0xff, sizeof(state));
		OPT(VCPU, KVM_GET_MP_STATE, "after", &state);
		record(t, MAY_BE_ABSENT, have(t, KVM_GET_MP_STATE) ? state.mp_state : ABSENT,
		       "GET_MP_STATE after %u", i);
		drop(t);
	}
	fresh(t);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		char name[32];

		snprintf(name, sizeof(name), "length %u", lengths[i]);
		memset(buffer, 0, 65536);
		((struct kvm_signal_mask *)buffer)->len = lengths[i];
		OPT(VCPU, KVM_SET_SIGNAL_MASK, name, buffer);
	}
	((struct kvm_signal_mask *)last_bytes)->len = 8;
	OPT(VCPU, KVM_SET_SIGNAL_MASK, "past memory", last_bytes);
	OPT(VCPU, KVM_SET_SIGNAL_MASK, "null", NULL);
	drop(t);
	for (i = 0; i < ARRAY_SIZE(vectors); i++) {
		struct kvm_interrupt irq = { .irq = vectors[i] };
		char name[32];

		fresh(t);
		snprintf(name, sizeof(name), "vector %#x", vectors[i]);
		OPT(VCPU, KVM_INTERRUPT, name, &irq);
		OPT(VCPU, KVM_INTERRUPT, name, &irq);
		drop(t);
	}
}

static void test_state(struct table *t)
{
	struct kvm_enable_cap cap;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_xcrs xcrs;
	unsigned int i;

	fresh(t);
	for (i = 0; i < 12; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%u", i);
		memset(&xcrs, 0, sizeof(xcrs));
		xcrs.nr_xcrs = i == 0 ? 0 : i == 1 ? 17 : i == 2 ? ~0U : 1;
		xcrs.flags = i == 3;
		xcrs.xcrs[0].xcr = i == 4;
		xcrs.xcrs[0].value = i == 5 ? 0 : i == 6 ? 2 : i == 7 ? 5 : i == 8 ? 7 :
				     i == 9 ? 1UL << 62 : i == 10 ? ~0UL : 1;
		OPT(VCPU, KVM_SET_XCRS, name, &xcrs);
		memset(&debug, 0, sizeof(debug));
		debug.flags = i == 1;
		debug.dr7 = i == 2 ? 1UL << 32 : 0x400;
		debug.dr6 = i == 3 ? 1UL << 32 : i == 4 ? 0 : 0xffff0ff0;
		debug.db[0] = i == 5 ? 1UL << 60 : 0;
		OPT(VCPU, KVM_SET_DEBUGREGS, name, &debug);
		memset(&events, 0, sizeof(events));
		events.flags = 1U << (i * 2);
		OPT(VCPU, KVM_SET_VCPU_EVENTS, name, &events);
		memset(&events, 0, sizeof(events));
		events.exception.injected = 1;
		events.exception.nr = i * 4;
		OPT(VCPU, KVM_SET_VCPU_EVENTS, "exception", &events);
		memset(&cap, 0, sizeof(cap));
		cap.cap = i < 4 ? 0x7fffff00 + i : i;
		cap.flags = i == 1;
		OPT(VM, KVM_ENABLE_CAP, name, &cap);
		record(t, MAY_BE_UNKNOWN, try_ioctl(t->vcpu.fd, KVM_ENABLE_CAP, (long)&cap),
		       "vcpu ENABLE_CAP %u", i);
	}
	drop(t);
	for (i = 0; i < 6; i++) {
		static const unsigned long addresses[] = {
			0, 0xfffbd000, 0xfeffd000, 0xffffd000, 0xfffff000, 1UL << 32,
		};
		uint64_t address = addresses[i];
		long ret;

		fresh(t);
		ret = try_ioctl(t->vm.fd, KVM_SET_TSS_ADDR, address);
		record(t, MAY_BE_ABSENT, ret == -ENOTTY ? ABSENT : ret, "SET_TSS_ADDR %#lx", address);
		OPT(VM, KVM_SET_IDENTITY_MAP_ADDR, "after a vcpu", &address);
		ret = try_ioctl(t->vm.fd, KVM_CREATE_IRQCHIP, 0);
		record(t, MAY_BE_ABSENT, ret == -ENOTTY ? ABSENT : ret, "CREATE_IRQCHIP after a vcpu");
		ret = try_ioctl(t->vcpu.fd, KVM_GET_TSC_KHZ, 0);
		/* The rate that it has already is fine, if it can be set at all. */
		if (ret > 0 && !try_ioctl(t->vcpu.fd, KVM_SET_TSC_KHZ, ret))
			ret = try_ioctl(t->vcpu.fd, KVM_SET_TSC_KHZ, i == 5 ? ~0UL : i * 1000);
		else
			ret = ABSENT;
		record(t, MAY_BE_ABSENT, ret, "SET_TSC_KHZ %u", i);
		drop(t);
	}
}

/*
 * Capabilities that a VM is given, before and after it has local APICs and a
 * vCPU; and what is said of them.
 */
static void test_vm_capabilities(struct table *t)
{
	static const struct {
		unsigned int cap;
		uint64_t arg;
	} rows[] = {
		{ KVM_CAP_X2APIC_API, 0 },
		{ KVM_CAP_X2APIC_API, KVM_X2APIC_API_USE_32BIT_IDS },
		{ KVM_CAP_X2APIC_API, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK },
		{ KVM_CAP_X2APIC_API, KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST },
		{ KVM_CAP_X2APIC_API, KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST },
		{ KVM_CAP_X2APIC_API, KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST |
				      KVM_X2APIC_DISABLE_SUPPRESS_EOI_BROADCAST },
		{ KVM_CAP_X2APIC_API, 16 },
		{ KVM_CAP_X2APIC_API, 1UL << 32 },
		{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, 0 },
		{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, 40 },
		{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, 1UL << 25 },
		{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, 1UL << 26 },
		{ KVM_CAP_X86_APIC_BUS_CYCLES_NS, ~0UL },
		{ KVM_CAP_HALT_POLL, 0 },
		{ KVM_CAP_HALT_POLL, ~0U },
		{ KVM_CAP_HALT_POLL, 1UL << 32 },
		{ KVM_CAP_HLT, 0 },
	};
	unsigned int stage, i;
	struct vcpu vcpu;
	struct vm vm;

	for (stage = 0; stage < 3; stage++) {
		open_vm(t, &vm);
		if (stage > 0) {
			struct kvm_enable_cap split = {
				.cap = KVM_CAP_SPLIT_IRQCHIP,
				.args = { 24 },
			};

			xioctl(vm.fd, KVM_ENABLE_CAP, &split);
		}
		if (stage > 1)
			vcpu_create(&vcpu, &vm, 0);
		for (i = 0; i < ARRAY_SIZE(rows); i++) {
			struct kvm_enable_cap cap = {
				.cap = rows[i].cap,
				.args = { rows[i].arg },
			};

			record(t, STRICT, try_ioctl(vm.fd, KVM_ENABLE_CAP, (long)&cap),
			       "stage %u capability %u %#lx", stage, rows[i].cap, rows[i].arg);
			record(t, STRICT, try_ioctl(vm.fd, KVM_CHECK_EXTENSION, rows[i].cap),
			       "stage %u CHECK_EXTENSION %u after %#lx", stage, rows[i].cap,
			       rows[i].arg);
		}
		if (stage > 1)
			vcpu_destroy(&vcpu);
		vm_destroy(&vm);
	}
}

/* Attributes that are there and that are not, with and without room for the value. */
static void test_attributes(struct table *t)
{
	static const unsigned long numbers[] = {
		KVM_HAS_DEVICE_ATTR, KVM_GET_DEVICE_ATTR, KVM_SET_DEVICE_ATTR,
	};
	uint64_t value = 12345;
	unsigned int i, k;

	fresh(t);
	for (i = 0; i < 12; i++) {
		struct kvm_device_attr attr = {
			.flags = i & 1,
			.group = i / 2 % 3,
			.attr = i / 6,
			.addr = i % 4 == 3 ? 0 : (unsigned long)&value,
		};

		for (k = 0; k < ARRAY_SIZE(numbers); k++) {
			if (k < 2)
				record(t, STRICT, try_ioctl(t->vm.dev, numbers[k], (long)&attr),
				       "device attribute %u, ioctl %u, on device fd", i, k);
			record(t, STRICT, try_ioctl(t->vcpu.fd, numbers[k], (long)&attr),
			       "device attribute %u, ioctl %u, on vcpu fd", i, k);
		}
	}
	/* What is set is read back, and read as the offset of the guest's counter. */
	value = -180000000000ULL;
	for (k = 0; k < 3; k++) {
		struct kvm_device_attr attr = {
			.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
			.addr = (unsigned long)&value,
		};

		record(t, STRICT, try_ioctl(t->vcpu.fd, numbers[2 - k], (long)&attr),
		       "offset of the counter, step %u", k);
		record(t, STRICT, value == -180000000000ULL, "the offset at step %u", k);
	}
	drop(t);
}

struct routing {
	struct kvm_irq_routing head;
	struct kvm_irq_routing_entry entries[3];
};

static long set_routes(struct table *t, unsigned int count, struct kvm_irq_routing_entry a,
		       struct kvm_irq_routing_entry b)
{
	struct routing routing = { .head.nr = count, .entries = { a, b } };

	return try_ioctl(t->vm.fd, KVM_SET_GSI_ROUTING, (unsigned long)&routing);
}

/* Routes that are fine, that no VM has, and that contradict each other. */
static void test_routes(struct table *t, const char *mode)
{
#define MSI(number, ...)	{ .gsi = number, .type = KVM_IRQ_ROUTING_MSI, __VA_ARGS__ }
#define PIN(number, c, p)	{ .gsi = number, .type = KVM_IRQ_ROUTING_IRQCHIP,	\
				  .u.irqchip = { c, p } }
	static const struct kvm_irq_routing_entry routes[] = {
		MSI(0), MSI(4095), MSI(4096), MSI(~0U), MSI(1, .flags = 1), MSI(1, .flags = 2),
		MSI(1, .flags = ~0U), MSI(2, .u.msi.address_hi = 1), MSI(2, .u.msi.data = ~0U),
		PIN(0, 0, 0), PIN(0, 0, 7), PIN(0, 0, 8), PIN(0, 1, 7), PIN(0, 1, 8), PIN(0, 2, 0),
		PIN(0, 2, 23), PIN(0, 2, 24), PIN(0, 3, 0), PIN(0, ~0U, 0), PIN(0, 0, ~0U),
		{ .type = 0 }, { .type = 3 }, { .type = 6 }, { .type = ~0U },
		{ .type = KVM_IRQ_ROUTING_IRQCHIP, .flags = 1 },
	};
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(routes); i++) {
		record(t, STRICT, set_routes(t, 1, routes[i], routes[0]), "%s: route %u", mode, i);
		for (k = 0; k < ARRAY_SIZE(routes); k++)
			record(t, STRICT, set_routes(t, 2, routes[i], routes[k]),
			       "%s: routes %u and %u", mode, i, k);
	}
#undef MSI
#undef PIN
}

static void test_lines(struct table *t, const char *mode)
{
	static const unsigned int gsis[] = { 0, 2, 8, 15, 16, 23, 24, 4095, 4096, ~0U };
	struct routing routing = { 0 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x60 };
	unsigned int i, k;
	int flag;

	for (i = 0; i < ARRAY_SIZE(gsis); i++) {
		for (k = 0; k < 4; k++) {
			struct kvm_irq_level line = { .irq = gsis[i], .level = k < 3 ? k : ~0U };
			long ret = try_ioctl(t->vm.fd, k & 1 ? KVM_IRQ_LINE_STATUS : KVM_IRQ_LINE,
					     (unsigned long)&line);

			record(t, STRICT, ret, "%s: line %u, step %u", mode, gsis[i], k);
			record(t, STRICT, line.status, "%s: status of it", mode);
		}
	}
	for (flag = -1; flag < 32; flag++) {
		routing.head.flags = msi.flags = flag < 0 ? 0 : 1U << flag;
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_SET_GSI_ROUTING, (unsigned long)&routing),
		       "%s: no routes, flag %d", mode, flag);
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_SIGNAL_MSI, (unsigned long)&msi),
		       "%s: MSI, flag %d", mode, flag);
	}
	routing.head.flags = 0;
	for (i = 4096; i; i = i == 4096 ? 4097 : i == 4097 ? ~0U : 0) {
		static struct kvm_irq_routing_entry many[4200];
		struct kvm_irq_routing *head = (void *)many;

		/* The same route again and again, or too many of them. */
		memset(many, 0, sizeof(many));
		head->nr = i;
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_SET_GSI_ROUTING, (unsigned long)head),
		       "%s: %u routes", mode, i);
	}
}

/* Words that tell one state from another: of the first 16 bytes, the rest of 32, and so on. */
static void record_state(struct table *t, const struct kvm_irqchip *chip, const char *mode,
			 const char *what)
{
	const unsigned char *bytes = (const void *)&chip->chip;
	unsigned int i, length, hash = 2166136261;

	for (i = 0, length = 16; length <= sizeof(chip->chip); length *= 2) {
		for (; i < length; i++)
			hash = (hash ^ bytes[i]) * 16777619;
		record(t, STRICT, hash, "%s: chip %#x %s, %u bytes", mode, chip->chip_id, what,
		       length);
	}
}

/* The state of each controller, and of some that are not there. */
static void test_chips(struct table *t, const char *mode)
{
	static const unsigned int chips[] = { 0, 1, 2, 3, 4, ~0U };
	struct kvm_irqchip chip;
	struct kvm_interrupt irq = { .irq = 0x40 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(chips); i++) {
		memset(&chip, 0xa5, sizeof(chip));
		chip.chip_id = chips[i];
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_GET_IRQCHIP, (long)&chip),
		       "%s: get chip %#x", mode, chips[i]);
		record_state(t, &chip, mode, "as it was");
		/* Whatever is set is there. */
		memset(&chip.chip, 0x5a, sizeof(chip.chip));
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_SET_IRQCHIP, (long)&chip),
		       "%s: set chip %#x", mode, chips[i]);
		memset(&chip.chip, 0, sizeof(chip.chip));
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_GET_IRQCHIP, (long)&chip),
		       "%s: get chip %#x again", mode, chips[i]);
		record_state(t, &chip, mode, "as it was set");
	}
	if (t->vcpu.fd <= 0)
		return;
	/* Twice: the first waits. */
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_INTERRUPT, (long)&irq), "%s: interrupt", mode);
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_INTERRUPT, (long)&irq), "%s: another", mode);
	irq.irq = 256;
	record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_INTERRUPT, (long)&irq), "%s: none", mode);
}

/* Interrupt controllers in each order of creation, and their lines and routes. */
static void test_irqs(struct table *t)
{
	static const char * const modes[] = {
		"no irqchip", "split irqchip", "split irqchip, no pins", "irqchip",
	};
	static const unsigned long pins[] = { 4097, ~0UL, 4096, 24, 0 };
	unsigned int mode, i;

	for (mode = 0; mode < ARRAY_SIZE(modes); mode++) {
		struct kvm_enable_cap split = {
			.cap = KVM_CAP_SPLIT_IRQCHIP,
			.args = { mode == 1 ? 24 : 0 },
		};

		open_vm(t, &t->vm);
		t->vcpu.fd = -1;
		if (mode == 3)
			record(t, STRICT, try_ioctl(t->vm.fd, KVM_CREATE_IRQCHIP, 0),
			       "%s: made", modes[mode]);
		else if (mode)
			record(t, STRICT, try_ioctl(t->vm.fd, KVM_ENABLE_CAP, (long)&split),
			       "%s: made", modes[mode]);
		test_lines(t, modes[mode]);
		test_chips(t, modes[mode]);
		test_routes(t, modes[mode]);
		if (mode)
			record(t, STRICT, try_ioctl(t->vm.fd, KVM_CREATE_IRQCHIP, 0),
			       "%s: irqchip beside it", modes[mode]);
		for (i = 0; i < ARRAY_SIZE(pins); i++) {
			split.args[0] = pins[i];
			/* The first one that is fine, or none. */
			record(t, STRICT, try_ioctl(t->vm.fd, KVM_ENABLE_CAP, (long)&split),
			       "%s: split irqchip of %#lx pins", modes[mode], pins[i]);
		}
		vcpu_create(&t->vcpu, &t->vm, 0);
		for (i = 0; i < ARRAY_SIZE(pins); i++) {
			split.args[0] = pins[i];
			record(t, STRICT, try_ioctl(t->vm.fd, KVM_ENABLE_CAP, (long)&split),
			       "%s: split irqchip of %#lx pins after a vcpu", modes[mode], pins[i]);
		}
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_CREATE_IRQCHIP, 0),
		       "%s: irqchip after a vcpu", modes[mode]);
		test_lines(t, modes[mode]);
		test_chips(t, modes[mode]);
		drop(t);
	}
}

/* Registers by their names, what CPUID is emulated, and what the client may ask to be told. */
static void test_one_reg(struct table *t)
{
	const uint64_t names[] = {
		0, KVM_X86_REG_MSR(0x174), KVM_X86_REG_MSR(0x174) ^ KVM_REG_SIZE_U64,
		KVM_X86_REG_MSR(0x174) | KVM_REG_SIZE_U8 << 0, KVM_X86_REG_MSR(0x174) | 1UL << 40,
		KVM_X86_REG_MSR(0x174) | 1UL << 48, KVM_X86_REG_MSR(0x12345678),
		KVM_X86_REG_MSR(0x10a), KVM_X86_REG_MSR(0x48), KVM_X86_REG_KVM(0),
		KVM_X86_REG_KVM(1), KVM_REG_ARM64 | KVM_REG_SIZE_U64, ~0UL,
		KVM_X86_REG_MSR(0xc0000080),
	};
	static const uint64_t addresses[] = { 0, 1, 0x7ead00000000, 0xffff888000000000 };
	struct kvm_cpuid2 *cpuid = (struct kvm_cpuid2 *)buffer;
	struct kvm_enable_cap cap = {};
	uint64_t value, list[2];
	unsigned int i, k;

	fresh(t);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		struct kvm_one_reg reg = { .id = names[i], .addr = (uint64_t)&value };

		value = i;
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_ONE_REG, (long)&reg),
		       "SET_ONE_REG %#lx", names[i]);
		value = 0;
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_ONE_REG, (long)&reg),
		       "GET_ONE_REG %#lx", names[i]);
		record(t, STRICT, names[i] == KVM_X86_REG_MSR(0x10a) ? 0 : value,
		       "value of %#lx", names[i]);
		for (k = 0; k < ARRAY_SIZE(addresses); k++) {
			reg.addr = addresses[k];
			record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_SET_ONE_REG, (long)&reg),
			       "SET_ONE_REG %#lx from %#lx", names[i], addresses[k]);
			record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_ONE_REG, (long)&reg),
			       "GET_ONE_REG %#lx to %#lx", names[i], addresses[k]);
		}
	}
	for (i = 0; i < 3; i++) {
		list[0] = i;
		record(t, STRICT, try_ioctl(t->vcpu.fd, KVM_GET_REG_LIST, (long)list),
		       "GET_REG_LIST %u", i);
		record(t, STRICT, list[0], "GET_REG_LIST %u: registers", i);
	}
	for (i = 0; i < 8; i++) {
		memset(buffer, 0, 65536);
		cpuid->nent = i < 6 ? i : i == 6 ? 257 : ~0U;
		if (i == 5)
			cpuid->entries[3].padding[2] = 1;
		record(t, STRICT, try_ioctl(t->vm.dev, KVM_GET_EMULATED_CPUID, (long)cpuid),
		       "GET_EMULATED_CPUID %u", i);
		record(t, STRICT, cpuid->nent, "GET_EMULATED_CPUID %u: leaves", i);
		for (k = 0; k < 4; k++)
			record(t, STRICT, cpuid->entries[k].function ^ cpuid->entries[k].eax << 4 ^
			       cpuid->entries[k].ecx ^ (uint64_t)cpuid->entries[k].flags << 32,
			       "GET_EMULATED_CPUID %u: leaf %u", i, k);
	}
	for (i = 0; i < 16; i++) {
		cap.args[0] = i < 3 ? i : i == 15 ? ~0UL : 1UL << (i * 4);
		cap.cap = KVM_CAP_EXIT_HYPERCALL;
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_ENABLE_CAP, (long)&cap),
		       "EXIT_HYPERCALL %#llx", cap.args[0]);
		cap.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE;
		record(t, STRICT, try_ioctl(t->vm.fd, KVM_ENABLE_CAP, (long)&cap),
		       "EXIT_ON_EMULATION_FAILURE %#llx", cap.args[0]);
	}
	drop(t);
}

static void fill_table(struct table *t, const char *path)
{
	t->path = path;
	t->count = 0;
	t->rows = calloc(MAX_ROWS, sizeof(*t->rows));
	test_pointers(t);
	test_unknown(t);
	test_attributes(t);
	test_vm_capabilities(t);
	test_system(t);
	test_files(t);
	test_create_vcpu(t);
	test_dirty_ring(t);
	test_nx_huge_pages(t);
	test_regions(t);
	test_ioeventfd(t);
	test_guest_memfd(t);
	test_irqfd(t);
	test_ranges(t);
	test_regs(t);
	test_sregs(t);
	test_cpuid(t);
	test_msrs(t);
	test_one_reg(t);
	test_vcpu_small(t);
	test_state(t);
	test_irqs(t);
}

static const char *show(long value, char *buf)
{
	if (value == ABSENT)
		return "absent";
	if (value < 0 && value > -200)
		sprintf(buf, "-%s", strerrorname_np(-value) ?: "?");
	else
		sprintf(buf, "%#lx", value);
	return buf;
}

static void prepare(void)
{
	buffer = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	read_only = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	last_bytes = memory_alloc(2 * PAGE, PAGE);
	mprotect(last_bytes + PAGE, PAGE, PROT_NONE);
	last_bytes += PAGE - 4;
}

/* Whether a difference is one that a feature not yet there explains. */
static bool excused(const struct row *ours, const struct row *theirs)
{
	switch (ours->excuse) {
	case MAY_BE_ABSENT:
		return ours->value == ABSENT;
	case MAY_BE_ZERO:
		return ours->value == 0;
	case MAY_BE_PART:
		return ours->value >= 0 && !(ours->value & ~theirs->value);
	case MAY_BE_UNKNOWN:
		return ours->value == (strstr(ours->name, " on vm fd") ? -ENOTTY : -EINVAL);
	default:
		return false;
	}
}

static unsigned int compare(const struct table *ours, const struct table *theirs)
{
	unsigned int i, differences = 0, absent = 0;
	bool all = getenv("IOCTL_ERRORS_TABLE") != NULL;
	char a[32], b[32];

	for (i = 0; i < ours->count && i < theirs->count; i++) {
		const struct row *r = &ours->rows[i], *q = &theirs->rows[i];
		bool differs = r->value != q->value;

		if (strcmp(r->name, q->name))
			die("row %u: %s and %s", i, r->name, q->name);
		if (differs && excused(r, q)) {
			absent++;
			differs = false;
		}
		differences += differs;
		if (differs || all)
			printf("# %-60s %-12s %-12s%s\n", r->name, show(r->value, a),
			       show(q->value, b), differs ? "  differs" : "");
	}
	printf("# %u rows, %u differ, %u of features not there\n", i, differences, absent);
	fflush(stdout);
	return differences;
}

/* The answers of one device do not depend on what came before. */
TEST(same_answers_twice)
{
	struct table first, second;

	if (access("/dev/kvm-rs", F_OK) == 0 && access("/dev/kvm", F_OK) == 0)
		SKIP(return, "both devices are there and are compared");
	prepare();
	close(device_open());
	fill_table(&first, device_path());
	fill_table(&second, device_path());
	EXPECT_EQ(first.count, second.count);
	EXPECT_EQ(compare(&first, &second), 0);
}

TEST(kvm_rs_answers_as_kvm)
{
	struct table ours, theirs;

	if (access("/dev/kvm-rs", F_OK) || access("/dev/kvm", F_OK))
		SKIP(return, "needs /dev/kvm and /dev/kvm-rs");
	prepare();
	fill_table(&theirs, "/dev/kvm");
	fill_table(&ours, "/dev/kvm-rs");
	EXPECT_EQ(ours.count, theirs.count);
	EXPECT_EQ(compare(&ours, &theirs), 0);
}

TEST_HARNESS_MAIN
