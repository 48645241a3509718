/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shims for shrinkers. Documented in shrinker.c.
 */
#ifndef KVM_RS_HELPERS_SHRINKER_H
#define KVM_RS_HELPERS_SHRINKER_H

struct kvm_rs_shrinker;

struct kvm_rs_shrinker *kvm_rs_shrinker_register(const char *name, int seeks, long batch,
						 unsigned long (*count)(void *data),
						 unsigned long (*scan)(void *data,
								       unsigned long wanted),
						 void *data);
void kvm_rs_shrinker_unregister(struct kvm_rs_shrinker *self);

#endif /* KVM_RS_HELPERS_SHRINKER_H */
