#!/bin/sh
# The kernel's code changes while it runs: modules come and go, and every function is traced and is not.
cd /stress/loaded || exit
stress-ng --fork 1 --pipe 1 --timeout 0 >/dev/null 2>&1 &
before=$(busybox lsmod | wc -l)
for round in $(seq 20); do
    # Those in use stay; the disk would not.
    for module in $(busybox tac order | grep -v virtio); do busybox rmmod "${module%.ko}" 2>/dev/null; done
    for module in $(cat order); do busybox insmod "$module" 2>/dev/null; done
done
[ "$(busybox lsmod | wc -l)" = "$before" ] && echo "modules passed" || echo "modules are missing"
mount -t tracefs tracefs /sys/kernel/tracing
cd /sys/kernel/tracing || exit
if grep -qw function available_tracers; then
    for round in $(seq 10); do
        echo function >current_tracer
        sleep 0.2
        echo nop >current_tracer
    done
    grep -qx nop current_tracer && echo "tracing passed" || echo "tracing goes on"
fi
kill $! && wait
