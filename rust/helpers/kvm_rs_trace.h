/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The trace events of the system kvm_rs. An event is called as KVM's where it tells the same, and so are
 * its fields, so that what reads `kvm:kvm_exit` reads `kvm_rs:kvm_exit` too. All arguments are numbers:
 * see rust/trace.rs, which calls them.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvm_rs

#if !defined(KVM_RS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define KVM_RS_TRACE_H

#include <asm/vmx.h>
#include <linux/kvm.h>
#include <linux/tracepoint.h>

/* The only value of kvm_exit's field isa: what the exit reason is to be read as. */
#define KVM_RS_ISA_VMX 1

/* A VM entry that is about to happen, with what it injects. */
TRACE_EVENT(kvm_entry,
	TP_PROTO(u32 vcpu_id, u64 rip, u32 intr_info, u32 error_code),
	TP_ARGS(vcpu_id, rip, intr_info, error_code),
	TP_STRUCT__entry(
		__field(u32, vcpu_id)
		__field(u64, rip)
		__field(u32, intr_info)
		__field(u32, error_code)
	),
	TP_fast_assign(
		__entry->vcpu_id = vcpu_id;
		__entry->rip = rip;
		__entry->intr_info = intr_info;
		__entry->error_code = error_code;
	),
	TP_printk("vcpu %u, rip 0x%llx intr_info 0x%08x error_code 0x%08x",
		  __entry->vcpu_id, __entry->rip, __entry->intr_info, __entry->error_code)
);

/* A VM exit: info1 is the exit qualification, info2 the IDT-vectoring information. */
TRACE_EVENT(kvm_exit,
	TP_PROTO(u32 vcpu_id, u32 exit_reason, u64 guest_rip, u64 info1, u64 info2, u32 intr_info,
		 u32 error_code),
	TP_ARGS(vcpu_id, exit_reason, guest_rip, info1, info2, intr_info, error_code),
	TP_STRUCT__entry(
		__field(u32, exit_reason)
		__field(u64, guest_rip)
		__field(u32, isa)
		__field(u64, info1)
		__field(u64, info2)
		__field(u32, intr_info)
		__field(u32, error_code)
		__field(u32, vcpu_id)
	),
	TP_fast_assign(
		__entry->exit_reason = exit_reason;
		__entry->guest_rip = guest_rip;
		__entry->isa = KVM_RS_ISA_VMX;
		__entry->info1 = info1;
		__entry->info2 = info2;
		__entry->intr_info = intr_info;
		__entry->error_code = error_code;
		__entry->vcpu_id = vcpu_id;
	),
	TP_printk("vcpu %u reason %s%s%s rip 0x%llx info1 0x%016llx info2 0x%016llx "
		  "intr_info 0x%08x error_code 0x%08x",
		  __entry->vcpu_id,
		  __print_symbolic(__entry->exit_reason & 0xffff, VMX_EXIT_REASONS),
		  __entry->exit_reason & ~0xffff ? " " : "",
		  __print_flags(__entry->exit_reason & ~0xffff, " ", VMX_EXIT_REASON_FLAGS),
		  __entry->guest_rip, __entry->info1, __entry->info2,
		  __entry->intr_info, __entry->error_code)
);

/* An access that EPT refused; the error code is the exit qualification, as in KVM. */
TRACE_EVENT(kvm_page_fault,
	TP_PROTO(u32 vcpu_id, u64 guest_rip, u64 fault_address, u64 error_code),
	TP_ARGS(vcpu_id, guest_rip, fault_address, error_code),
	TP_STRUCT__entry(
		__field(u32, vcpu_id)
		__field(u64, guest_rip)
		__field(u64, fault_address)
		__field(u64, error_code)
	),
	TP_fast_assign(
		__entry->vcpu_id = vcpu_id;
		__entry->guest_rip = guest_rip;
		__entry->fault_address = fault_address;
		__entry->error_code = error_code;
	),
	TP_printk("vcpu %u rip 0x%llx address 0x%016llx error_code 0x%llx",
		  __entry->vcpu_id, __entry->guest_rip, __entry->fault_address,
		  __entry->error_code)
);

/* An interrupt that the next entry delivers. */
TRACE_EVENT(kvm_inj_virq,
	TP_PROTO(u32 vector, bool soft, bool reinjected),
	TP_ARGS(vector, soft, reinjected),
	TP_STRUCT__entry(
		__field(u32, vector)
		__field(bool, soft)
		__field(bool, reinjected)
	),
	TP_fast_assign(
		__entry->vector = vector;
		__entry->soft = soft;
		__entry->reinjected = reinjected;
	),
	TP_printk("%s 0x%x%s", __entry->soft ? "Soft/INTn" : "IRQ", __entry->vector,
		  __entry->reinjected ? " [reinjected]" : "")
);

/* An NMI that the next entry delivers. */
TRACE_EVENT(kvm_inj_nmi,
	TP_PROTO(u32 vcpu_id, bool reinjected),
	TP_ARGS(vcpu_id, reinjected),
	TP_STRUCT__entry(
		__field(u32, vcpu_id)
		__field(bool, reinjected)
	),
	TP_fast_assign(
		__entry->vcpu_id = vcpu_id;
		__entry->reinjected = reinjected;
	),
	TP_printk("vcpu %u%s", __entry->vcpu_id, __entry->reinjected ? " [reinjected]" : "")
);

#define KVM_RS_VECTORS							\
	{ 0, "#DE" }, { 1, "#DB" }, { 3, "#BP" }, { 4, "#OF" },		\
	{ 5, "#BR" }, { 6, "#UD" }, { 7, "#NM" }, { 8, "#DF" },		\
	{ 10, "#TS" }, { 11, "#NP" }, { 12, "#SS" }, { 13, "#GP" },	\
	{ 14, "#PF" }, { 16, "#MF" }, { 17, "#AC" }, { 18, "#MC" },	\
	{ 19, "#XM" }, { 20, "#VE" }, { 21, "#CP" }

/* An exception that the next entry delivers. */
TRACE_EVENT(kvm_inj_exception,
	TP_PROTO(u32 exception, bool has_error, u32 error_code, bool reinjected),
	TP_ARGS(exception, has_error, error_code, reinjected),
	TP_STRUCT__entry(
		__field(u8, exception)
		__field(u8, has_error)
		__field(u32, error_code)
		__field(bool, reinjected)
	),
	TP_fast_assign(
		__entry->exception = exception;
		__entry->has_error = has_error;
		__entry->error_code = error_code;
		__entry->reinjected = reinjected;
	),
	TP_printk("%s%s%s%s%s",
		  __print_symbolic(__entry->exception, KVM_RS_VECTORS),
		  !__entry->has_error ? "" : " (",
		  !__entry->has_error ? "" : __print_symbolic(__entry->error_code, { 0, "0x0" }),
		  !__entry->has_error ? "" : ")",
		  __entry->reinjected ? " [reinjected]" : "")
);

/* RDMSR or WRMSR of the guest; with exception, it raises #GP. */
TRACE_EVENT(kvm_msr,
	TP_PROTO(bool write, u32 ecx, u64 data, bool exception),
	TP_ARGS(write, ecx, data, exception),
	TP_STRUCT__entry(
		__field(u32, write)
		__field(u32, ecx)
		__field(u64, data)
		__field(u8, exception)
	),
	TP_fast_assign(
		__entry->write = write;
		__entry->ecx = ecx;
		__entry->data = data;
		__entry->exception = exception;
	),
	TP_printk("msr_%s %x = 0x%llx%s", __entry->write ? "write" : "read", __entry->ecx,
		  __entry->data, __entry->exception ? " (#GP)" : "")
);

/* An access to a control register that exits. */
TRACE_EVENT(kvm_cr,
	TP_PROTO(bool write, u32 cr, u64 val),
	TP_ARGS(write, cr, val),
	TP_STRUCT__entry(
		__field(u32, rw)
		__field(u32, cr)
		__field(u64, val)
	),
	TP_fast_assign(
		__entry->rw = write;
		__entry->cr = cr;
		__entry->val = val;
	),
	TP_printk("cr_%s %x = 0x%llx", __entry->rw ? "write" : "read", __entry->cr, __entry->val)
);

/* CPUID, with what the guest gets. */
TRACE_EVENT(kvm_cpuid,
	TP_PROTO(u32 function, u32 index, u32 eax, u32 ebx, u32 ecx, u32 edx, bool found),
	TP_ARGS(function, index, eax, ebx, ecx, edx, found),
	TP_STRUCT__entry(
		__field(u32, function)
		__field(u32, index)
		__field(u64, rax)
		__field(u64, rbx)
		__field(u64, rcx)
		__field(u64, rdx)
		__field(bool, found)
	),
	TP_fast_assign(
		__entry->function = function;
		__entry->index = index;
		__entry->rax = eax;
		__entry->rbx = ebx;
		__entry->rcx = ecx;
		__entry->rdx = edx;
		__entry->found = found;
	),
	TP_printk("func %x idx %x rax %llx rbx %llx rcx %llx rdx %llx, cpuid entry %s",
		  __entry->function, __entry->index, __entry->rax, __entry->rbx, __entry->rcx,
		  __entry->rdx, __entry->found ? "found" : "not found")
);

/* VMCALL. */
TRACE_EVENT(kvm_hypercall,
	TP_PROTO(u64 nr, u64 a0, u64 a1, u64 a2, u64 a3),
	TP_ARGS(nr, a0, a1, a2, a3),
	TP_STRUCT__entry(
		__field(u64, nr)
		__field(u64, a0)
		__field(u64, a1)
		__field(u64, a2)
		__field(u64, a3)
	),
	TP_fast_assign(
		__entry->nr = nr;
		__entry->a0 = a0;
		__entry->a1 = a1;
		__entry->a2 = a2;
		__entry->a3 = a3;
	),
	TP_printk("nr 0x%llx a0 0x%llx a1 0x%llx a2 0x%llx a3 0x%llx", __entry->nr, __entry->a0,
		  __entry->a1, __entry->a2, __entry->a3)
);

/*
 * Port I/O: a write as it goes to the client, a read as it comes back. Of a string, the first element.
 */
TRACE_EVENT(kvm_pio,
	TP_PROTO(bool write, u32 port, u32 size, u32 count, u32 val),
	TP_ARGS(write, port, size, count, val),
	TP_STRUCT__entry(
		__field(u32, rw)
		__field(u32, port)
		__field(u32, size)
		__field(u32, count)
		__field(u32, val)
	),
	TP_fast_assign(
		__entry->rw = write;
		__entry->port = port;
		__entry->size = size;
		__entry->count = count;
		__entry->val = val;
	),
	TP_printk("pio_%s at 0x%x size %d count %d val 0x%x %s",
		  __entry->rw ? "write" : "read", __entry->port, __entry->size, __entry->count,
		  __entry->val, __entry->count > 1 ? "(...)" : "")
);

#define KVM_RS_MMIO_TYPES						\
	{ 0, "unsatisfied-read" }, { 1, "read" }, { 2, "write" }

/* Memory-mapped I/O: a read is told as it goes to the client and as it comes back. */
TRACE_EVENT(kvm_mmio,
	TP_PROTO(u32 type, u32 len, u64 gpa, u64 val),
	TP_ARGS(type, len, gpa, val),
	TP_STRUCT__entry(
		__field(u32, type)
		__field(u32, len)
		__field(u64, gpa)
		__field(u64, val)
	),
	TP_fast_assign(
		__entry->type = type;
		__entry->len = len;
		__entry->gpa = gpa;
		__entry->val = val;
	),
	TP_printk("mmio %s len %u gpa 0x%llx val 0x%llx",
		  __print_symbolic(__entry->type, KVM_RS_MMIO_TYPES), __entry->len, __entry->gpa,
		  __entry->val)
);

#define KVM_RS_EXIT(x) { KVM_EXIT_##x, "KVM_EXIT_" #x }
#define KVM_RS_EXITS							\
	KVM_RS_EXIT(UNKNOWN), KVM_RS_EXIT(IO), KVM_RS_EXIT(DEBUG),	\
	KVM_RS_EXIT(HLT), KVM_RS_EXIT(MMIO),				\
	KVM_RS_EXIT(IRQ_WINDOW_OPEN), KVM_RS_EXIT(SHUTDOWN),		\
	KVM_RS_EXIT(FAIL_ENTRY), KVM_RS_EXIT(INTR),			\
	KVM_RS_EXIT(SET_TPR), KVM_RS_EXIT(INTERNAL_ERROR),		\
	KVM_RS_EXIT(IOAPIC_EOI), KVM_RS_EXIT(X86_RDMSR),		\
	KVM_RS_EXIT(X86_WRMSR), KVM_RS_EXIT(MEMORY_FAULT)

/* The end of KVM_RUN: errno is 0 or negative. */
TRACE_EVENT(kvm_userspace_exit,
	TP_PROTO(u32 reason, int errno),
	TP_ARGS(reason, errno),
	TP_STRUCT__entry(
		__field(u32, reason)
		__field(int, errno)
	),
	TP_fast_assign(
		__entry->reason = reason;
		__entry->errno = errno;
	),
	TP_printk("reason %s (%d)",
		  __entry->errno < 0 ?
		  (__entry->errno == -EINTR ? "restart" : "error") :
		  __print_symbolic(__entry->reason, KVM_RS_EXITS),
		  __entry->errno < 0 ? -__entry->errno : __entry->reason)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE kvm_rs_trace

/* Outside of the guard: it reads this file again and again. */
#include <trace/define_trace.h>
