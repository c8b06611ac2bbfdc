//! Which key of a US keyboard has a character, an X11 keysym or a name.
//!
//! A key is a scan code of set 1, with [`EXTENDED`] for those after the prefix 0xe0: what QEMU's
//! extension of RFB sends, too.
//!
//! What this crate may not know: who types, and into what.
//!
//! Follows X11's `keysymdef.h` and the PS/2 Technical Reference's key table.

/// The bit of keys whose scan code comes after 0xe0.
pub const EXTENDED: u8 = 0x80;
/// Left shift.
pub const SHIFT_LEFT: u8 = 0x2a;
/// Right shift.
pub const SHIFT_RIGHT: u8 = 0x36;

/// A key, and whether it is to be pressed with shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stroke {
    /// The key.
    pub code: u8,
    /// With shift.
    pub shift: bool,
}

/// Keys in rows, from their first scan code: what they type without and with shift.
const ROWS: [(u8, &str, &str); 5] = [
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x39, " ", " "),
];

/// Keys with names: the name, its keysym, and the key.
#[rustfmt::skip]
const NAMED: &[(&str, u32, u8)] = &[
    ("esc", 0xff1b, 0x01), ("backspace", 0xff08, 0x0e), ("tab", 0xff09, 0x0f),
    ("enter", 0xff0d, 0x1c), ("space", 0x20, 0x39),
    ("shift", 0xffe1, SHIFT_LEFT), ("shift-right", 0xffe2, SHIFT_RIGHT),
    ("ctrl", 0xffe3, 0x1d), ("ctrl-right", 0xffe4, 0x9d),
    ("alt", 0xffe9, 0x38), ("alt-right", 0xffea, 0xb8),
    ("super", 0xffeb, 0xdb), ("super-right", 0xffec, 0xdc), ("menu", 0xff67, 0xdd),
    ("caps-lock", 0xffe5, 0x3a), ("num-lock", 0xff7f, 0x45), ("scroll-lock", 0xff14, 0x46),
    ("f1", 0xffbe, 0x3b), ("f2", 0xffbf, 0x3c), ("f3", 0xffc0, 0x3d), ("f4", 0xffc1, 0x3e),
    ("f5", 0xffc2, 0x3f), ("f6", 0xffc3, 0x40), ("f7", 0xffc4, 0x41), ("f8", 0xffc5, 0x42),
    ("f9", 0xffc6, 0x43), ("f10", 0xffc7, 0x44), ("f11", 0xffc8, 0x57), ("f12", 0xffc9, 0x58),
    ("home", 0xff50, 0xc7), ("left", 0xff51, 0xcb), ("up", 0xff52, 0xc8), ("right", 0xff53, 0xcd),
    ("down", 0xff54, 0xd0), ("page-up", 0xff55, 0xc9), ("page-down", 0xff56, 0xd1),
    ("end", 0xff57, 0xcf), ("insert", 0xff63, 0xd2), ("delete", 0xffff, 0xd3),
    ("print", 0xff61, 0xb7), ("pause", 0xff13, 0xc6),
    ("kp-0", 0xffb0, 0x52), ("kp-1", 0xffb1, 0x4f), ("kp-2", 0xffb2, 0x50), ("kp-3", 0xffb3, 0x51),
    ("kp-4", 0xffb4, 0x4b), ("kp-5", 0xffb5, 0x4c), ("kp-6", 0xffb6, 0x4d), ("kp-7", 0xffb7, 0x47),
    ("kp-8", 0xffb8, 0x48), ("kp-9", 0xffb9, 0x49), ("kp-point", 0xffae, 0x53),
    ("kp-enter", 0xff8d, 0x9c), ("kp-plus", 0xffab, 0x4e), ("kp-minus", 0xffad, 0x4a),
    ("kp-times", 0xffaa, 0x37), ("kp-slash", 0xffaf, 0xb5),
];

/// Keysyms besides those of [`NAMED`], and the key.
#[rustfmt::skip]
const OTHERS: &[(u32, u8)] = &[
    (0xfe20, 0x0f), // shift-tab
    (0xff0a, 0x1c), (0xff6b, 0xc6), (0xff15, 0x54), // line feed, break, SysRq
    (0xffe7, 0xdb), (0xffe8, 0xdc), (0xfe03, 0xb8), // meta, AltGr
    (0xff95, 0x47), (0xff96, 0x4b), (0xff97, 0x48), (0xff98, 0x4d), (0xff99, 0x50), // keypad
    (0xff9a, 0x49), (0xff9b, 0x51), (0xff9c, 0x4f), (0xff9d, 0x4c), (0xff9e, 0x52), (0xff9f, 0x53),
];

/// The key that types a character.
pub fn of_char(character: char) -> Option<Stroke> {
    let special = match character {
        '\n' | '\r' => Some("enter"),
        '\t' => Some("tab"),
        '\u{8}' => Some("backspace"),
        '\u{1b}' => Some("esc"),
        _ => None,
    };
    if let Some(name) = special {
        return of_name(name).map(|code| Stroke { code, shift: false });
    }
    ROWS.iter().find_map(|(first, plain, shifted)| {
        let in_row = |row: &str| (*first..).zip(row.chars()).find(|(_, c)| *c == character);
        let stroke = |shift| move |(code, _)| Stroke { code, shift };
        in_row(plain).map(stroke(false)).or_else(|| in_row(shifted).map(stroke(true)))
    })
}

/// The key of a keysym. Only for those of characters does shift mean anything.
pub fn of_keysym(keysym: u32) -> Option<Stroke> {
    let named = NAMED.iter().map(|(_, symbol, code)| (*symbol, *code));
    let mut all = named.chain(OTHERS.iter().copied());
    if let Some(stroke) = char::from_u32(keysym).filter(char::is_ascii).and_then(of_char) {
        return Some(stroke);
    }
    all.find(|(symbol, _)| *symbol == keysym).map(|(_, code)| Stroke { code, shift: false })
}

/// A keysym is that of a printed character, whose shift is part of its meaning.
pub fn is_character(keysym: u32) -> bool {
    (0x21..=0x7e).contains(&keysym)
}

/// The key of this name: that of a character without shift, or one of [`names`].
pub fn of_name(name: &str) -> Option<u8> {
    let mut characters = name.chars();
    if let (Some(only), None) = (characters.next(), characters.next()) {
        return of_char(only.to_ascii_lowercase()).filter(|s| !s.shift).map(|s| s.code);
    }
    let name = match name {
        "del" => "delete",
        "return" => "enter",
        "escape" => "esc",
        "control" => "ctrl",
        "meta" | "win" => "super",
        "pgup" => "page-up",
        "pgdn" => "page-down",
        "ins" => "insert",
        name => name,
    };
    NAMED.iter().find(|(known, ..)| *known == name).map(|(.., code)| *code)
}

/// Names of keys that type nothing.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMED.iter().map(|(name, ..)| *name)
}

/// The keys of a combination of names with '-' or '+' between them: "ctrl-alt-delete".
///
/// # Errors
/// The name that no key has.
pub fn combination(text: &str) -> Result<Vec<u8>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        // Names have dashes in them: the longest that is one counts.
        let ends = rest.char_indices().filter(|(at, c)| *at > 0 && matches!(c, '-' | '+'));
        let ends: Vec<usize> = ends.map(|(at, _)| at).chain([rest.len()]).collect();
        let found = ends.iter().rev().find_map(|end| of_name(&rest[..*end]).map(|key| (key, *end)));
        let Some((key, end)) = found else {
            return Err(rest[..ends[0]].to_owned());
        };
        keys.push(key);
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printed_character_of_ascii_has_a_key() {
        for character in ' '..='~' {
            assert!(of_char(character).is_some(), "{character:?}");
        }
        assert_eq!(of_char('a'), Some(Stroke { code: 0x1e, shift: false }));
        assert_eq!(of_char('~'), Some(Stroke { code: 0x29, shift: true }));
        assert_eq!(of_char('?'), Some(Stroke { code: 0x35, shift: true }));
        assert_eq!(of_char('\\'), Some(Stroke { code: 0x2b, shift: false }));
        assert_eq!(of_char('M'), Some(Stroke { code: 0x32, shift: true }));
        assert_eq!(of_char('é'), None);
    }

    #[test]
    fn keysyms_of_arrows_and_the_keypad_are_other_keys() {
        assert_eq!(of_keysym(0xff52).unwrap().code, 0xc8);
        assert_eq!(of_keysym(0xff97).unwrap().code, 0x48);
        assert_eq!(of_keysym(0x41), Some(Stroke { code: 0x1e, shift: true }));
        assert_eq!(of_keysym(0xff), None);
    }

    #[test]
    fn combinations_are_taken_apart_by_the_longest_names() {
        assert_eq!(combination("ctrl-alt-delete"), Ok(vec![0x1d, 0x38, 0xd3]));
        assert_eq!(combination("ctrl+alt+f2"), Ok(vec![0x1d, 0x38, 0x3c]));
        assert_eq!(combination("shift-page-up"), Ok(vec![0x2a, 0xc9]));
        assert_eq!(combination("alt--"), Ok(vec![0x38, 0x0c]));
        assert_eq!(combination("ctrl-nothing"), Err("nothing".to_owned()));
        assert!(names().all(|name| of_name(name).is_some()));
    }
}
