/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads for rust/bindings.rs: the KVM uapi, the C shims and the kernel types that they use.
 */
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/kvm.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/syscore_ops.h>

#include <asm/perf_event.h>

#include "helpers/eventfd.h"
#include "helpers/guest_memfd.h"
#include "helpers/helpers.h"
#include "helpers/ioctl.h"
#include "helpers/mm.h"
#include "helpers/kvm_rs_trace.h"
#include "helpers/periodic.h"
#include "helpers/shrinker.h"
#include "helpers/wait.h"
#include "vmx/guest_regs.h"
