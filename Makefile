# SPDX-License-Identifier: GPL-2.0
#
# What each target does stands in scripts/. Kbuild describes the module itself.

KDIR ?= /lib/modules/$(shell uname -r)/build

.DEFAULT_GOAL := help

help:
	@echo 'In the emulated VT-x machine (needs no VT-x, no KVM):'
	@echo '  run              build everything, boot, run the sample guests'
	@echo '  check            run every test'
	@echo '  bench            measure kvm_rs beside kvm_intel'
	@echo '  scripts/rig      run a command of your own there (--help)'
	@echo
	@echo "For one's own kernel, built with CONFIG_RUST=y:"
	@echo '  modules          build kvm_rs.ko against KDIR'
	@echo '                   (default: $(KDIR))'
	@echo '  modules_install  install it for that kernel'
	@echo
	@echo 'For work on the source:'
	@echo '  clippy           run the linter, for the kernel of the machine'
	@echo '  fmt              format the Rust code; fmt-check only looks'
	@echo '  clean            remove what was built from this checkout'
	@echo '  distclean        remove the cache too: build root, kernels, emulator'

run check bench:
	@scripts/$@

modules modules_install:
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

clippy:
	@scripts/module release --clippy

fmt:
	@scripts/fmt

fmt-check:
	@scripts/fmt --check

clean distclean:
	@scripts/clean $@

.PHONY: help run check bench modules modules_install clippy fmt fmt-check clean distclean
