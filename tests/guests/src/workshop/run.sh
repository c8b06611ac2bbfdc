#!/bin/sh
# Runs the work it is told. Each line of results begins with STRESS and the work's name.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
for name in "$@"; do
    mkdir "/tmp/$name"
    cd "/tmp/$name"
    program=/stress/$name
    [ -d "$program" ] && program=$program/run
    "$program" </dev/null 2>/tmp/errors | sed "s/^/STRESS $name /"
    # Why it failed, for whoever looks at the console.
    tail -n 3 /tmp/errors
    cd /
    rm -rf "/tmp/$name"
done
echo STRESS-END
