#!/bin/sh
# Loads under which things break that hold otherwise. Each looks at its own results (stress-ng --verify).
# STRAIN_SECONDS, on the kernel's command line, is how long each takes.
seconds=${STRAIN_SECONDS:-60}
cpus=$(nproc)
strain() {
    name=$1
    shift
    timeout -s KILL $((seconds * 10 + 300)) \
        stress-ng --verify --timeout "$seconds" --temp-path /tmp "$@" >log 2>&1
    case $? in
        # Three: there was not enough memory for one of them.
        0 | 3) echo "$name passed" ;;
        *) echo "$name ends with an error"; grep -i "fail\|error" log | tail -n 3 >&2 ;;
    esac
}
strain memory --vm "$cpus" --vm-bytes 80% --brk 1 --mmap 1 --mremap 1 --madvise 1 --stack 1 --shm 1
strain forks --fork "$cpus" --vfork 1 --clone 1 --exec 1 --pthread 1 --zombie 1 --daemon 1
strain signals --sigsegv 1 --sigfpe 1 --sigtrap 1 --sigq 1 --sigpending 1 --timer 1 --itimer 1 --kill 1 --sigchld 1
strain code --icache "$cpus" --branch 1 --funccall 1 --funcret 1 --mprotect 1 --tlb-shootdown 1 --seccomp 1
strain switches --switch 1 --pipe 1 --futex 1 --context 1 --sem 1 --msg 1 --poll 1 --affinity 1 --yield 1
strain sums --cpu "$cpus" --matrix 1 --vecmath 1 --crypt 1 --hash 1 --qsort 1 --memcpy 1 --str 1
strain atomic --atomic 1 --lockbus 1 --mutex 1 --peterson 1 --dekker 1 --membarrier 1 --rseq 1
# Programs whose compiler works while they run, beside processes that come and go.
stress-ng --fork 1 --timeout 0 >/dev/null 2>&1 &
for round in 1 2 3; do
    /stress/node >"node$round" 2>&1 || echo "exits with $?" >>"node$round"
done
kill $! && wait
[ -s node1 ] && cmp -s node1 node2 && cmp -s node1 node3 && echo "jit passed" || echo "jit differs"
