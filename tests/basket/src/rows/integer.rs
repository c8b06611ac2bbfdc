//! Integers, branches and calls in code of ours.

use std::hint::black_box;

use super::{Made, Place, mix};
use crate::random::Random;

/// Calls in a round.
pub const CALLS: u64 = (1 << (DEPTH + 1)) - 1;
const DEPTH: u32 = 11;
/// Bytecode instructions in a round.
pub const STEPS: u64 = 20_000;
/// Insertions in a round.
pub const INSERTS: u64 = 2048;

const SIDE: usize = 16;

/// Sort, matrix product, state machine, CRC.
pub fn intmix(_: &Place) -> Made {
    let mut random = Random::new();
    let text: Vec<u8> = (0..1024).map(|_| b"ab1 2\"\\.\n+"[random.below(10)]).collect();
    let table = crc_table();
    Ok(Some(Box::new(move |rounds| {
        let mut sum = 0;
        for _ in 0..rounds {
            let mut values: [u32; 256] = std::array::from_fn(|_| random.next() as u32);
            shell_sort(black_box(&mut values));
            sum = mix(sum, u64::from(values[17]) << 32 | u64::from(values[200]));
            sum = mix(sum, product_trace(&values));
            sum = mix(sum, words(black_box(&text)));
            sum = mix(sum, u64::from(crc(&table, black_box(&text))));
        }
        sum
    })))
}

fn shell_sort(values: &mut [u32]) {
    for gap in [57, 23, 10, 4, 1] {
        for at in gap..values.len() {
            let value = values[at];
            let mut to = at;
            while to >= gap && values[to - gap] > value {
                values[to] = values[to - gap];
                to -= gap;
            }
            values[to] = value;
        }
    }
}

/// The trace of a matrix's square, with a rotation that keeps it out of vector units.
fn product_trace(values: &[u32; SIDE * SIDE]) -> u64 {
    let mut trace = 0;
    for row in 0..SIDE {
        for column in 0..SIDE {
            let mut cell = 0u64;
            for k in 0..SIDE {
                let factors = (values[row * SIDE + k], values[k * SIDE + column]);
                cell = (cell + u64::from(factors.0) * u64::from(factors.1)).rotate_left(1);
            }
            trace ^= cell.wrapping_add((row ^ column) as u64);
        }
    }
    trace
}

/// Counts words, numbers and quoted strings, as a lexer would.
fn words(text: &[u8]) -> u64 {
    enum State {
        Space,
        Word,
        Number,
        Quoted,
        Escaped,
    }
    let (mut state, mut counts) = (State::Space, [0u64; 3]);
    for byte in text {
        state = match (state, byte) {
            (State::Escaped, _) => State::Quoted,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Quoted, b'"') => State::Space,
            (State::Quoted, _) => State::Quoted,
            (State::Word, b'a'..=b'z' | b'0'..=b'9') => State::Word,
            (State::Number, b'0'..=b'9' | b'.') => State::Number,
            (_, b'"') => {
                counts[2] += 1;
                State::Quoted
            }
            (_, b'a'..=b'z') => {
                counts[0] += 1;
                State::Word
            }
            (_, b'0'..=b'9') => {
                counts[1] += 1;
                State::Number
            }
            _ => State::Space,
        };
    }
    counts[0] << 32 | counts[1] << 16 | counts[2]
}

fn crc_table() -> [u32; 256] {
    std::array::from_fn(|byte| {
        (0..8).fold(
            byte as u32,
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

fn crc(table: &[u32; 256], bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| table[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

/// FIPS 180-4, 4.2.2: from the cube roots of the first 64 primes.
fn sha256_constants() -> [u32; 64] {
    let mut primes = (2u64..).filter(|n| (2..*n).all(|d| n % d != 0));
    std::array::from_fn(|_| {
        let prime = u128::from(primes.next().unwrap_or(2));
        // The cube root of the prime times 2^96, whose lower half is the fraction.
        let (mut root, mut bit) = (0u128, 1 << 35);
        while bit > 0 {
            let larger = root | bit;
            if larger * larger * larger <= prime << 96 {
                root = larger;
            }
            bit >>= 1;
        }
        root as u32
    })
}

/// One block after another, each the same.
pub fn sha256(_: &Place) -> Made {
    let constants = sha256_constants();
    let mut random = Random::new();
    let block: [u32; 16] = std::array::from_fn(|_| random.next() as u32);
    let mut state: [u32; 8] = std::array::from_fn(|_| random.next() as u32);
    Ok(Some(Box::new(move |rounds| {
        for _ in 0..rounds {
            sha256_block(&constants, &mut state, black_box(&block));
        }
        state.iter().fold(0, |sum, word| mix(sum, u64::from(*word)))
    })))
}

/// FIPS 180-4, 6.2.2.
fn sha256_block(constants: &[u32; 64], state: &mut [u32; 8], block: &[u32; 16]) {
    let mut schedule = [0u32; 64];
    schedule[..16].copy_from_slice(block);
    for t in 16..64 {
        let (a, b) = (schedule[t - 15], schedule[t - 2]);
        let small_0 = a.rotate_right(7) ^ a.rotate_right(18) ^ a >> 3;
        let small_1 = b.rotate_right(17) ^ b.rotate_right(19) ^ b >> 10;
        schedule[t] = schedule[t - 16]
            .wrapping_add(small_0)
            .wrapping_add(schedule[t - 7])
            .wrapping_add(small_1);
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for t in 0..64 {
        let big_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let first = h
            .wrapping_add(big_1)
            .wrapping_add(e & f ^ !e & g)
            .wrapping_add(constants[t])
            .wrapping_add(schedule[t]);
        let big_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let second = big_0.wrapping_add(a & b ^ a & c ^ b & c);
        (h, g, f, e) = (g, f, e, d.wrapping_add(first));
        (d, c, b, a) = (c, b, a, first.wrapping_add(second));
    }
    for (word, value) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(value);
    }
}

/// A tree of calls.
pub fn call(_: &Place) -> Made {
    Ok(Some(Box::new(|rounds| (0..rounds).fold(1, |sum, _| tree(black_box(DEPTH), sum)))))
}

#[inline(never)]
fn tree(depth: u32, value: u64) -> u64 {
    if depth == 0 {
        return value.wrapping_add(7);
    }
    let left = tree(depth - 1, value);
    let right = tree(depth - 1, left ^ u64::from(depth));
    left.rotate_left(5) ^ right
}

/// An instruction of a machine with four registers.
#[derive(Clone, Copy)]
enum Op {
    Set(u8, u32),
    Add(u8, u8),
    Xor(u8, u8),
    Shift(u8, u8),
    Less(u8, u8),
    Decrement(u8),
    JumpUnlessZero(u8, u8),
    Load(u8, u8),
    Store(u8, u8),
}

/// A loop that dispatches on an instruction of a small program.
pub fn bytecode(_: &Place) -> Made {
    let program = [
        Op::Set(0, 50),
        Op::Set(1, 12_345),
        Op::Add(2, 1),
        Op::Load(3, 2),
        Op::Xor(3, 0),
        Op::Shift(3, 3),
        Op::Store(3, 2),
        Op::Add(1, 3),
        Op::Less(3, 1),
        Op::JumpUnlessZero(3, 11),
        Op::Xor(2, 1),
        Op::Decrement(0),
        Op::JumpUnlessZero(0, 2),
    ];
    let (mut registers, mut memory) = ([0u32; 4], [1u32; 64]);
    Ok(Some(Box::new(move |rounds| {
        for _ in 0..rounds {
            interpret(black_box(&program), &mut registers, &mut memory);
        }
        memory.iter().chain(&registers).fold(0, |sum, word| mix(sum, u64::from(*word)))
    })))
}

fn interpret(program: &[Op], registers: &mut [u32; 4], memory: &mut [u32; 64]) {
    let r = |register: u8| usize::from(register & 3);
    let mut at = 0;
    for _ in 0..STEPS {
        let op = program[at];
        at = if at + 1 == program.len() { 0 } else { at + 1 };
        match op {
            Op::Set(a, value) => registers[r(a)] = value,
            Op::Add(a, b) => registers[r(a)] = registers[r(a)].wrapping_add(registers[r(b)]),
            Op::Xor(a, b) => registers[r(a)] ^= registers[r(b)],
            Op::Shift(a, by) => registers[r(a)] = registers[r(a)].rotate_left(u32::from(by)),
            Op::Less(a, b) => registers[r(a)] = u32::from(registers[r(a)] < registers[r(b)]),
            Op::Decrement(a) => registers[r(a)] = registers[r(a)].wrapping_sub(1),
            Op::JumpUnlessZero(a, to) if registers[r(a)] != 0 => at = usize::from(to),
            Op::JumpUnlessZero(..) => {}
            Op::Load(a, b) => registers[r(a)] = memory[(registers[r(b)] & 63) as usize],
            Op::Store(a, b) => memory[(registers[r(b)] & 63) as usize] = registers[r(a)],
        }
    }
}

/// Insertions into a hash table with open addresses, which is emptied before each round.
pub fn hash(_: &Place) -> Made {
    let mut table = vec![0u64; 2 * INSERTS as usize];
    let mut random = Random::new();
    Ok(Some(Box::new(move |rounds| {
        let (mut sum, mask) = (0, table.len() - 1);
        for _ in 0..rounds {
            table.fill(0);
            for _ in 0..INSERTS {
                let key = random.next() | 1;
                let mut slot = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
                while table[slot] != 0 && table[slot] != key {
                    slot = (slot + 1) & mask;
                }
                table[slot] = key;
            }
            sum = mix(sum, table[black_box(77)]);
        }
        table.iter().fold(sum, |sum, key| mix(sum, *key))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_one_of_ieee() {
        assert_eq!(crc(&crc_table(), b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn sha256_is_the_one_of_the_standard() {
        let mut state = [
            0x6a09_e667,
            0xbb67_ae85,
            0x3c6e_f372,
            0xa54f_f53a,
            0x510e_527f,
            0x9b05_688c,
            0x1f83_d9ab,
            0x5be0_cd19,
        ];
        let mut block = [0; 16];
        (block[0], block[15]) = (0x6162_6380, 24);
        sha256_block(&sha256_constants(), &mut state, &block);
        assert_eq!((state[0], state[7]), (0xba78_16bf, 0xf200_15ad));
    }

    #[test]
    fn sorted_values_ascend() {
        let mut random = Random::new();
        let mut values: Vec<u32> = (0..256).map(|_| random.next() as u32).collect();
        shell_sort(&mut values);
        assert!(values.is_sorted());
    }
}
