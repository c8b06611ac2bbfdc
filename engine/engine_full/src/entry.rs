//! The way into translated code and back.
//!
//! UNSAFETY: changes stack, segment bases and every register; what it jumps to is translated code,
//! which keeps to the table in [`crate::context`] and comes back through [`leave`].
#![allow(unsafe_code, reason = "entering generated code is this module's job")]

use std::arch::naked_asm;

use crate::cache::SITE_JUMP;
use crate::context::{
    Context, FAR_TURN, FxArea, KNOWN_WINDOWS, KnownWindow, OTHER_JUMPS, ROOM_SIZE, ROOMS,
    StackWindow, at, field,
};
use crate::views::{USER_FAR_JUMPS, USER_JUMPS, USER_JUMPS_FOR};

/// What the engine's own code runs with.
pub(crate) const HOST_MXCSR: u32 = 0x1f80;

/// The displacement of a guest register.
const fn gpr(number: usize) -> i32 {
    at(std::mem::offset_of!(Context, gpr) + 8 * number)
}

/// The displacement of a vector register.
const fn vector(number: usize) -> i32 {
    at(std::mem::offset_of!(Context, vector) + 16 * number)
}

/// Runs translated code from [`Context::target`] until it leaves.
///
/// # Safety
/// `view` is the GS base of a view whose context is loaded; the target is translated code, and the
/// thread has an alternate signal stack.
#[unsafe(naked)]
unsafe extern "C" fn enter(view: u64) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "wrgsbase rdi",
        "rdfsbase rax",
        "mov gs:[{host_fs}], rax",
        "mov gs:[{host_stack}], rsp",
        "ldmxcsr gs:[{mxcsr}]",
        "movaps xmm0, gs:[{x0}]", "movaps xmm1, gs:[{x0} + 16]",
        "movaps xmm2, gs:[{x0} + 32]", "movaps xmm3, gs:[{x0} + 48]",
        "movaps xmm4, gs:[{x0} + 64]", "movaps xmm5, gs:[{x0} + 80]",
        "movaps xmm6, gs:[{x0} + 96]", "movaps xmm7, gs:[{x0} + 112]",
        "movaps xmm8, gs:[{x0} + 128]", "movaps xmm9, gs:[{x0} + 144]",
        "movaps xmm10, gs:[{x0} + 160]", "movaps xmm11, gs:[{x0} + 176]",
        "movaps xmm12, gs:[{x0} + 192]", "movaps xmm13, gs:[{x0} + 208]",
        "movaps xmm14, gs:[{x0} + 224]", "movaps xmm15, gs:[{x0} + 240]",
        "mov rax, gs:[{view_fs}]",
        "wrfsbase rax",
        // OF by an addition that overflows when it was set, the others from AH.
        "mov al, gs:[{overflow}]",
        "add al, 0x7f",
        "mov ah, gs:[{flags}]",
        "sahf",
        "mov rax, gs:[{r0}]", "mov r11, gs:[{r0} + 8]",
        "mov rdx, gs:[{r0} + 16]", "mov rbx, gs:[{r0} + 24]",
        "mov rsp, gs:[{r0} + 32]", "mov rbp, gs:[{r0} + 40]",
        "mov rsi, gs:[{r0} + 48]", "mov rdi, gs:[{r0} + 56]",
        "mov r8, gs:[{r0} + 64]", "mov r9, gs:[{r0} + 72]",
        "mov r12, gs:[{r0} + 96]", "mov r13, gs:[{r0} + 104]",
        "mov r14, gs:[{r0} + 112]", "mov r15, gs:[{r0} + 120]",
        "mov r10, gs:[{scratch}]",
        "jmp gs:[{target}]",
        host_fs = const field!(host_fs),
        host_stack = const field!(host_stack),
        mxcsr = const field!(mxcsr),
        x0 = const vector(0),
        view_fs = const field!(view_fs),
        overflow = const field!(overflow),
        flags = const field!(flags),
        r0 = const gpr(0),
        scratch = const field!(scratch),
        target = const field!(target),
    )
}

/// Where translated code jumps to when it leaves, with the number of a site in ECX: returns from
/// [`enter`].
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn leave() {
    naked_asm!(
        "mov gs:[{r0}], rax",
        "lahf",
        "mov gs:[{flags}], ah",
        "seto al",
        "mov gs:[{overflow}], al",
        "mov gs:[{site}], ecx",
        "mov gs:[{scratch}], r10",
        "mov gs:[{r0} + 8], r11",
        "mov gs:[{r0} + 16], rdx", "mov gs:[{r0} + 24], rbx",
        "mov gs:[{r0} + 32], rsp", "mov gs:[{r0} + 40], rbp",
        "mov gs:[{r0} + 48], rsi", "mov gs:[{r0} + 56], rdi",
        "mov gs:[{r0} + 64], r8", "mov gs:[{r0} + 72], r9",
        "mov gs:[{r0} + 96], r12", "mov gs:[{r0} + 104], r13",
        "mov gs:[{r0} + 112], r14", "mov gs:[{r0} + 120], r15",
        "movaps gs:[{x0}], xmm0", "movaps gs:[{x0} + 16], xmm1",
        "movaps gs:[{x0} + 32], xmm2", "movaps gs:[{x0} + 48], xmm3",
        "movaps gs:[{x0} + 64], xmm4", "movaps gs:[{x0} + 80], xmm5",
        "movaps gs:[{x0} + 96], xmm6", "movaps gs:[{x0} + 112], xmm7",
        "movaps gs:[{x0} + 128], xmm8", "movaps gs:[{x0} + 144], xmm9",
        "movaps gs:[{x0} + 160], xmm10", "movaps gs:[{x0} + 176], xmm11",
        "movaps gs:[{x0} + 192], xmm12", "movaps gs:[{x0} + 208], xmm13",
        "movaps gs:[{x0} + 224], xmm14", "movaps gs:[{x0} + 240], xmm15",
        "stmxcsr gs:[{mxcsr}]",
        "ldmxcsr gs:[{mxcsr} + 4]",
        "mov rax, gs:[{host_fs}]",
        "wrfsbase rax",
        "mov rsp, gs:[{host_stack}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        r0 = const gpr(0),
        flags = const field!(flags),
        overflow = const field!(overflow),
        site = const field!(site),
        scratch = const field!(scratch),
        x0 = const vector(0),
        mxcsr = const field!(mxcsr),
        host_fs = const field!(host_fs),
        host_stack = const field!(host_stack),
    )
}

/// Where a unit jumps to whose frame is not in the stack window: makes a window that was found lately
/// the one in force, and goes back.
///
/// R10 is where the frame's last byte is, from the window's end, and RCX where to go on, with R10 from
/// the new end. The number of a site to leave by is in the context. Flags are dead.
macro_rules! change_window {
    ($(#[$doc:meta])* $name:ident, $own:literal) => {
        $(#[$doc])*
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            naked_asm!(
                "add r10, gs:[{end}]",
                "mov gs:[{borrowed}], rax",
                "mov gs:[{pushed}], rdx",
                "mov rax, r10",
                "shr rax, 12",
                "mov edx, eax",
                "and edx, {last}",
                "shl edx, 5",
                "cmp rax, gs:[rdx + {known}]",
                "jne 2f",
                "mov rax, gs:[rdx + {known} + 16]",
                "mov gs:[{end} + 8], rax",
                "mov rax, gs:[rdx + {known} + 8]",
                "mov gs:[{end}], rax",
                "sub r10, rax",
                "mov rax, gs:[rdx + {known} + 24]",
                "add rax, {size}", "mov gs:[{end} + 16], rax",
                "add rax, {size}", "mov gs:[{end} + 24], rax",
                "add rax, {size}", "mov gs:[{end} + 32], rax",
                "add rax, {size}", "mov gs:[{end} + 40], rax",
                "add rax, {size}", "mov gs:[{end} + 48], rax",
                "add rax, {size}", "mov gs:[{end} + 56], rax",
                "add rax, {size}", "mov gs:[{end} + 64], rax",
                "add rax, {size}", "mov gs:[{end} + 72], rax",
                "add rax, {size}", "mov gs:[{end} + 80], rax",
                "add rax, {size}", "mov gs:[{end} + 88], rax",
                "add rax, {size}", "mov gs:[{end} + 96], rax",
                "add rax, {size}", "mov gs:[{end} + 104], rax",
                "add rax, {size}", "mov gs:[{end} + 112], rax",
                "add rax, {size}", "mov gs:[{end} + 120], rax",
                "add rax, {size}", "mov gs:[{end} + 128], rax",
                "add rax, {size}", "mov gs:[{end} + 136], rax",
                "mov rdx, gs:[{pushed}]",
                "mov rax, gs:[{borrowed}]",
                "jmp rcx",
                "2:",
                "mov rdx, gs:[{pushed}]",
                "mov rax, gs:[{borrowed}]",
                "mov ecx, gs:[{site}]",
                "jmp {leave}",
                end = const at(std::mem::offset_of!(Context, stack) + $own * size_of::<StackWindow>()),
                known = const at(std::mem::offset_of!(Context, known_windows)
                    + $own * KNOWN_WINDOWS * size_of::<KnownWindow>()),
                last = const KNOWN_WINDOWS - 1,
                size = const ROOM_SIZE,
                borrowed = const field!(borrowed),
                pushed = const field!(pushed),
                site = const field!(site),
                leave = sym leave,
            )
        }
    };
}
// What is written out above.
const _: () = assert!(ROOMS == 16 && size_of::<KnownWindow>() == 32);
change_window!(
    /// Of the user's stack.
    change_user_window,
    0
);
change_window!(
    /// Of the kernel's.
    change_kernel_window,
    1
);

/// Where the kernel's translated code jumps to when it was kicked, or when the table of jumps has led
/// to code of another address than that in R10: looks into the other table. No flag is touched.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn jump_again() {
    naked_asm!(
        "mov rcx, gs:[{jump_mask}]",
        "jrcxz 3f",
        "pext rcx, r10, gs:[{mask}]",
        "mov rcx, gs:[rcx*8 + {jumps}]",
        "lea rcx, [rcx + r10]",
        "jrcxz 4f",
        "3:",
        "mov ecx, {site}",
        "jmp {leave}",
        "4:",
        "pext rcx, r10, gs:[{mask}]",
        "jmp gs:[rcx*8 + {jumps} + {size}]",
        jump_mask = const field!(jump_mask),
        mask = const field!(other_jumps_mask),
        jumps = const field!(other_jumps),
        size = const OTHER_JUMPS * 8,
        site = const SITE_JUMP,
        leave = sym leave,
    )
}

/// The same for user code, by the view's far table. What is found there goes to the table jumps look
/// into first; RCX is the place there, as for whoever looks into that.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn user_jump_again() {
    naked_asm!(
        "mov rcx, gs:[{jump_mask}]",
        "jrcxz 3f",
        "rorx rcx, r10, {turn}",
        "lea rcx, [rcx + r10]",
        "pext rcx, rcx, gs:[{mask}]",
        "lea rcx, [rcx + rcx]",
        "mov rcx, gs:[rcx*8 + {far}]",
        "lea rcx, [rcx + r10]",
        "jrcxz 4f",
        "3:",
        "mov ecx, {site}",
        "jmp {leave}",
        "4:",
        "rorx rcx, r10, {turn}",
        "lea rcx, [rcx + r10]",
        "pext rcx, rcx, gs:[{mask}]",
        "lea rcx, [rcx + rcx]",
        "mov rcx, gs:[rcx*8 + {far} + 8]",
        // Address zero is that of every empty entry.
        "jrcxz 3b",
        "mov gs:[{borrowed}], rax",
        "mov gs:[{pushed}], rcx",
        "mov rax, rcx",
        "movzx ecx, r10w",
        // The first entry stays one for all.
        "jrcxz 5f",
        "mov gs:[rcx*8 + {jumps}], rax",
        "5:",
        "mov rax, r10",
        "not rax",
        "lea rax, [rax + 1]",
        "mov gs:[rcx*8 + {jumps_for}], rax",
        "mov rax, gs:[{borrowed}]",
        "jmp gs:[{pushed}]",
        jump_mask = const field!(jump_mask),
        mask = const field!(far_jumps_mask),
        turn = const FAR_TURN,
        far = const USER_FAR_JUMPS,
        jumps = const USER_JUMPS,
        jumps_for = const USER_JUMPS_FOR,
        borrowed = const field!(borrowed),
        pushed = const field!(pushed),
        site = const SITE_JUMP,
        leave = sym leave,
    )
}

/// Reads the x87 state into `area` and resets it, so that the engine's own code finds an empty
/// register stack.
///
/// # Safety
/// The area is writable.
#[unsafe(naked)]
unsafe extern "C" fn take_x87(area: *mut FxArea) {
    naked_asm!("fxsave64 [rdi]", "fninit", "ret")
}

/// Gives the CPU the x87 state in `area`; its XMM registers are of no meaning afterwards.
///
/// # Safety
/// The area is what [`take_x87`] made, but for changes FXRSTOR64 accepts; its MXCSR is
/// [`HOST_MXCSR`].
#[unsafe(naked)]
unsafe extern "C" fn give_x87(area: *const FxArea) {
    naked_asm!("fxrstor64 [rdi]", "ret")
}

/// Runs translated code from [`Context::target`] until it leaves.
///
/// `view` is the GS base of a view of the calling vCPU, whose context holds registers and the place
/// of translated code.
pub(crate) fn run(view: u64) {
    // SAFETY: views are made by `Views`, which fills the context; what it names as target came from
    // the cache under the rules of `complex`; the vCPU's thread has a signal stack while it runs.
    unsafe { enter(view) }
}

/// The x87 state goes into the CPU.
pub(crate) fn load_x87(area: &FxArea) {
    // SAFETY: the area was filled by `Fpu::put_x87` and has the engine's MXCSR.
    unsafe { give_x87(area) }
}

/// The x87 state comes out of the CPU.
pub(crate) fn save_x87(area: &mut FxArea) {
    // SAFETY: the area is writable, and as large as FXSAVE64 writes.
    unsafe { take_x87(area) }
}
