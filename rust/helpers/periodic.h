/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shims for work that is done again and again. Documented in periodic.c.
 */
#ifndef KVM_RS_HELPERS_PERIODIC_H
#define KVM_RS_HELPERS_PERIODIC_H

struct kvm_rs_periodic;

struct kvm_rs_periodic *kvm_rs_periodic_start(unsigned int delay_ms,
					      unsigned int (*run)(void *data), void *data);
void kvm_rs_periodic_stop(struct kvm_rs_periodic *self);
void kvm_rs_periodic_wake_all(void);

#endif /* KVM_RS_HELPERS_PERIODIC_H */
