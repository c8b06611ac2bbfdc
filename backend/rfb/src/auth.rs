//! VNC authentication (7.2.2): a challenge, encrypted with the password.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};

/// Bytes of a challenge.
pub(crate) const CHALLENGE_SIZE: usize = 16;
/// Bytes of a password that count.
const PASSWORD_SIZE: usize = 8;

/// What a viewer that knows the password answers.
pub(crate) fn response(password: &str, challenge: &[u8; CHALLENGE_SIZE]) -> [u8; CHALLENGE_SIZE] {
    // The password's bits are mirrored in each byte: an accident of the first implementation.
    let mut key = [0; PASSWORD_SIZE];
    for (to, byte) in key.iter_mut().zip(password.bytes()) {
        *to = byte.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut answer = *challenge;
    for block in answer.as_chunks_mut::<8>().0 {
        let mut encrypted = (*block).into();
        cipher.encrypt_block(&mut encrypted);
        block.copy_from_slice(&encrypted);
    }
    answer
}

/// Equal, in a time that does not say where they differ.
pub(crate) fn same(one: &[u8; CHALLENGE_SIZE], two: &[u8; CHALLENGE_SIZE]) -> bool {
    one.iter().zip(two).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_is_that_of_other_implementations() {
        // openssl enc -des-ecb -nopad -K 0e86ceceeef64e26
        let answer = response("password", &[0; 16]);
        assert_eq!(answer[..8], [0xff, 0x97, 0x50, 0x2e, 0x94, 0x22, 0xf0, 0x89]);
        assert_eq!(answer[..8], answer[8..]);
        assert!(same(&answer, &response("password and more", &[0; 16])));
        assert!(!same(&answer, &response("passwore", &[0; 16])));
    }
}
