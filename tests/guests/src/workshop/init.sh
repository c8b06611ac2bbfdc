#!/bin/sh
# The first process: runs the work that the kernel's command line names.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
/stress/run $STRESS
exec busybox poweroff -f
