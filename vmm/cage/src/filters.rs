//! System calls by kind of thread and by engine.

use std::collections::BTreeMap;

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, apply_filter_all_threads,
};

use crate::CageError;

/// What a VM's process goes on doing when its cage is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// It asks KVM: engine `hw`, or a VM that can move there.
    pub kvm: bool,
    /// It makes code: engine `full`, or a VM that can move there.
    pub code: bool,
    /// It makes IP sockets: a user network, or a VM that can get one.
    pub inet: bool,
    /// It connects to UNIX sockets: a guest's sockets.
    pub unix: bool,
}

/// Files and memory that it has, time, and waiting: every thread's.
const EVERY: &[c_long] = &[
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_lseek,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_sync_file_range,
    SYS_close,
    SYS_dup,
    SYS_fstat,
    SYS_fcntl,
    SYS_io_uring_enter, // rings have their own list of operations: see `storage`
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_msync,
    SYS_mincore,
    SYS_brk,
    SYS_memfd_create,
    SYS_futex,
    SYS_membarrier,
    SYS_sched_yield,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_eventfd2,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_poll,
    SYS_ppoll,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigtimedwait,
    SYS_sigaltstack,
    SYS_restart_syscall,
    SYS_gettid,
    SYS_getpid,
    SYS_getppid,
    SYS_getpgrp,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getrandom,
    SYS_sched_getaffinity,
    SYS_getcpu,
    SYS_getrusage,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_exit,
    SYS_exit_group,
    SYS_uname,
    SYS_sysinfo,
];

/// Conversations over sockets that it has, and the end of the one process it has started: not a vCPU's.
const CONVERSATIONS: &[c_long] = &[
    SYS_recvfrom,
    SYS_sendto,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvmmsg,
    SYS_sendmmsg,
    SYS_shutdown,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_getsockname,
    SYS_getpeername,
    SYS_accept,
    SYS_accept4,
    SYS_signalfd4,
    SYS_pipe2,
    SYS_flock,
    SYS_wait4,
    SYS_waitid,
];

/// What nothing here ever asks for: who does has taken the process over, and it ends.
const HOSTILE: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_bpf,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    SYS_perf_event_open,
    SYS_open_by_handle_at,
    SYS_userfaultfd,
    SYS_pidfd_getfd,
    SYS_acct,
    SYS_iopl,
    SYS_ioperm,
    SYS_fsopen,
    SYS_fsmount,
    SYS_open_tree,
    SYS_move_mount,
    SYS_mount_setattr,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_personality,
    SYS_modify_ldt,
    SYS_fork,
    SYS_vfork,
];

/// `ioctl`s of descriptors it has: terminals without TIOCSTI, block devices, taps.
const IOCTLS: &[u64] = &[
    0x5401,
    0x5402,
    0x5403,
    0x5404, // TCGETS, TCSETS, -W, -F
    0x802c_542a,
    0x402c_542b,
    0x402c_542c,
    0x402c_542d, // TCGETS2, TCSETS2, -W, -F
    0x540f,
    0x5413,
    0x541b,
    0x5421, // TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO
    0x1260,
    0x1268,
    0x1277,
    0x127a,
    0x127b,
    0x127f,
    0x8008_1272, // BLK…
    0x4004_54d0,
    0x4004_54d9, // TUNSETOFFLOAD, TUNSETQUEUE
];
/// All of KVM's have this type.
const KVM_TYPE: (u64, u64) = (0xff00, 0xae00);

/// `prctl`s: names of threads and mappings, and what a narrower list asks for.
const PRCTLS: &[u64] = &[15, 16, 38, 0x5356_4d41];

type List = BTreeMap<i64, Vec<SeccompRule>>;

/// A rule of conditions, all of which must hold: argument, mask of bits looked at, and value.
fn rule(conditions: &[(u8, u64, u64)]) -> Result<SeccompRule, CageError> {
    let condition = |(index, mask, value): &(u8, u64, u64)| {
        let (len, op) = (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(*mask));
        SeccompCondition::new(*index, len, op, *value)
    };
    let conditions: Result<_, _> = conditions.iter().map(condition).collect();
    conditions.and_then(SeccompRule::new).map_err(wrong)
}

fn wrong(error: impl std::fmt::Display) -> CageError {
    CageError::List(error.to_string())
}

/// The lower half of an argument: what the kernel looks at where it takes an `int`.
const INT: u64 = 0xffff_ffff;

/// What both kinds of threads may do, in part.
fn common(needs: &Needs) -> Result<List, CageError> {
    let mut list: List = EVERY.iter().map(|call| (*call, Vec::new())).collect();
    let mut ioctls = Vec::new();
    for request in IOCTLS {
        ioctls.push(rule(&[(1, INT, *request)])?);
    }
    if needs.kvm {
        ioctls.push(rule(&[(1, KVM_TYPE.0, KVM_TYPE.1)])?);
    }
    list.insert(SYS_ioctl, ioctls);
    let mut prctls = Vec::new();
    for option in PRCTLS {
        prctls.push(rule(&[(0, INT, *option)])?);
    }
    list.insert(SYS_prctl, prctls);
    // Memory is executable where code is made, and nowhere else.
    let exec = PROT_EXEC as u64;
    let not_code = || if needs.code { Ok(Vec::new()) } else { Ok(vec![rule(&[(2, exec, 0)])?]) };
    list.insert(SYS_mmap, not_code()?);
    list.insert(SYS_mprotect, not_code()?);
    // Of descriptors only: a name is asked for without this flag.
    let empty = AT_EMPTY_PATH as u64;
    list.insert(SYS_statx, vec![rule(&[(2, empty, empty)])?]);
    list.insert(SYS_newfstatat, vec![rule(&[(3, empty, empty)])?]);
    // Its own limits, to look at; and no core, which would have the guest's memory in it.
    let core = u64::from(RLIMIT_CORE);
    let limits = [rule(&[(0, INT, 0), (2, u64::MAX, 0)])?, rule(&[(0, INT, 0), (1, INT, core)])?];
    list.insert(SYS_prlimit64, limits.to_vec());
    // Signals to its own threads.
    let own = u64::from(std::process::id());
    list.insert(SYS_tgkill, vec![rule(&[(0, INT, own)])?]);
    // Threads, and no processes. The newer call's arguments cannot be looked at: it is told to be missing.
    let thread = (CLONE_THREAD | CLONE_VM) as u64;
    list.insert(SYS_clone, vec![rule(&[(0, thread, thread)])?]);
    list.insert(SYS_clone3, Vec::new());
    // Narrower lists, which are asked for by this operation.
    list.insert(SYS_seccomp, vec![rule(&[(0, INT, u64::from(SECCOMP_SET_MODE_FILTER))])?]);
    Ok(list)
}

/// What the process as a whole may do.
fn process(needs: &Needs) -> Result<List, CageError> {
    let mut list = common(needs)?;
    list.extend(CONVERSATIONS.iter().map(|call| (*call, Vec::new())));
    let families = [(needs.inet, AF_INET), (needs.inet, AF_INET6), (needs.unix, AF_UNIX)];
    let mut sockets = Vec::new();
    for (_, family) in families.into_iter().filter(|(needed, _)| *needed) {
        sockets.push(rule(&[(0, INT, family as u64)])?);
    }
    if !sockets.is_empty() {
        list.insert(SYS_socket, sockets);
        list.extend([SYS_connect, SYS_bind, SYS_listen].map(|call| (call, Vec::new())));
    }
    Ok(list)
}

fn compile(
    list: List,
    other: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, CageError> {
    let filter = SeccompFilter::new(list, other, listed, TargetArch::x86_64).map_err(wrong)?;
    BpfProgram::try_from(filter).map_err(wrong)
}

const REFUSED: SeccompAction = SeccompAction::Errno(EPERM as u32);

/// Installs the lists for all threads. `Err` in words for people where the kernel has no filters.
pub(crate) fn install(needs: &Needs) -> Result<Result<String, String>, CageError> {
    let (allow, end) = (SeccompAction::Allow, SeccompAction::KillProcess);
    let listed = |calls: &[c_long]| calls.iter().map(|call| (*call, Vec::new())).collect();
    let missing = SeccompAction::Errno(ENOSYS as u32);
    let filters = [
        compile(process(needs)?, REFUSED, allow.clone())?,
        compile(listed(HOSTILE), allow.clone(), end)?,
        compile(listed(&[SYS_clone3]), allow, missing)?,
    ];
    for filter in &filters {
        if let Err(error) = apply_filter_all_threads(filter) {
            return Ok(Err(format!("seccomp: the kernel refuses filters ({error})")));
        }
    }
    let mut extra = Vec::new();
    for (needed, name) in
        [(needs.kvm, "KVM"), (needs.code, "code"), (needs.inet, "IP"), (needs.unix, "UNIX sockets")]
    {
        extra.extend(needed.then_some(name));
    }
    let extra = if extra.is_empty() { "nothing more".to_owned() } else { extra.join(", ") };
    Ok(Ok(format!("seccomp, by kind of thread: its own files and memory, and {extra}")))
}

/// The narrower list of vCPUs' threads: no sockets.
#[derive(Clone)]
pub struct VcpuFilter(BpfProgram);

impl VcpuFilter {
    /// That of a VM with these needs.
    ///
    /// # Errors
    /// When the list is wrong.
    pub fn new(needs: &Needs) -> Result<Self, CageError> {
        compile(common(needs)?, REFUSED, SeccompAction::Allow).map(Self)
    }

    /// Narrows the calling thread, whose process's cage is closed already.
    ///
    /// # Errors
    /// When the kernel has no filters.
    pub fn narrow(&self) -> Result<(), CageError> {
        apply_filter(&self.0).map_err(wrong)
    }
}
