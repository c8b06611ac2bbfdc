//! Guests of a few bytes: Multiboot 1 kernels that do one thing, for tests of what is around a
//! guest. They begin in 32-bit protected mode with flat segments and interrupts off.
//!
//! What this crate may not know: anything of ours. Ports are those of the board.

/// Where kernels are loaded, and begin [`HEADER_SIZE`] bytes later.
const LOAD_AT: u32 = 0x10_0000;
const HEADER_SIZE: u32 = 32;
/// Room for a stack and what the code writes, after it.
const BSS_SIZE: u32 = 0x1000;

/// A Multiboot kernel that runs `code` (Multiboot 0.6.96, with the address fields of 3.1.1).
pub fn multiboot(code: &[u8]) -> Vec<u8> {
    let flags = 1 << 16;
    let magic: u32 = 0x1bad_b002;
    let end = LOAD_AT + HEADER_SIZE + code.len() as u32;
    let header = [
        magic,
        flags,
        0u32.wrapping_sub(magic).wrapping_sub(flags),
        LOAD_AT,
        LOAD_AT,
        end,
        end + BSS_SIZE,
        LOAD_AT + HEADER_SIZE,
    ];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.extend_from_slice(code);
    image
}

/// `mov dx, port`.
fn port(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high]
}

/// `cli; hlt; jmp` to the hlt.
const STOP: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];

/// Prints each byte on the first serial port.
fn print(text: &str) -> Vec<u8> {
    let mut code = port(0x3f8);
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Prints a text, and then does what `then` says.
pub fn printing(text: &str, then: &[u8]) -> Vec<u8> {
    [print(text), then.to_vec()].concat()
}

/// Writes `value` to the debug-exit port.
pub fn debug_exit(value: u32) -> Vec<u8> {
    let mut code = vec![0xb8]; // mov eax, value
    code.extend(value.to_le_bytes());
    [code, port(0xf4), vec![0xef], STOP.to_vec()].concat() // out dx, eax
}

/// Powers off: SLP_TYP 5 and SLP_EN into PM1a_CNT.
pub fn power_off() -> Vec<u8> {
    let value = vec![0x66, 0xb8, 0x00, 0x34]; // mov ax, 5 << 10 | 1 << 13
    [value, port(0x604), vec![0x66, 0xef], STOP.to_vec()].concat() // out dx, ax
}

/// Resets the machine through port 0xcf9.
pub fn reset() -> Vec<u8> {
    [vec![0xb0, 0x06], port(0xcf9), vec![0xee], STOP.to_vec()].concat() // mov al, 6; out dx, al
}

/// Takes an exception with an IDT of no entries.
pub fn triple_fault() -> Vec<u8> {
    // push 0; push 0; lidt [esp]; int3. The stack is set up first, as the specification says.
    let stack = (LOAD_AT + 0x800).to_le_bytes();
    let mut code = vec![0xbc]; // mov esp, stack
    code.extend(stack);
    code.extend([0x6a, 0, 0x6a, 0, 0x0f, 0x01, 0x1c, 0x24, 0xcc]);
    code
}

/// Sends back each byte received on the first serial port, one higher; at a `!`, powers off.
pub fn echo() -> Vec<u8> {
    let mut code = vec![
        0x66, 0xba, 0xfd, 0x03, // wait: mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf7, // jz wait
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0x3c, b'!', // cmp al, '!'
        0x74, 0x05, // je done
        0xfe, 0xc0, // inc al
        0xee, // out dx, al
        0xeb, 0xe9, // jmp wait
    ];
    code.extend(power_off()); // done:
    code
}

/// Prints `.` for ever.
pub fn babble() -> Vec<u8> {
    [port(0x3f8), vec![0xb0, b'.', 0xee, 0xeb, 0xfd]].concat() // again: out dx, al; jmp again
}

/// Prints, as they are, the bytes of fw_cfg that tell the number of CPUs (2) and the size of RAM
/// (8), then powers off.
pub fn fw_cfg() -> Vec<u8> {
    let mut code = Vec::new();
    for (key, size) in [(5, 2), (3, 8)] {
        code.extend(port(0x510));
        code.extend([0x66, 0xb8, key, 0, 0x66, 0xef]); // mov ax, key; out dx, ax
        for _ in 0..size {
            code.extend([port(0x511), vec![0xec], port(0x3f8), vec![0xee]].concat()); // in, out
        }
    }
    [code, power_off()].concat()
}

/// Prints, as they are, the century and the year of the real-time clock (BCD, as after power-up),
/// then powers off.
pub fn year() -> Vec<u8> {
    let mut code = Vec::new();
    for register in [0x32, 0x09] {
        code.extend([0xb0, register, 0xe6, 0x70, 0xe4, 0x71]); // select; in al, 0x71
        code.extend([port(0x3f8), vec![0xee]].concat());
    }
    [code, power_off()].concat()
}

/// Waits for ever.
pub fn idle() -> Vec<u8> {
    STOP.to_vec()
}
