//! What needs no privilege. Frames through a tap: `tests/vm/tests/net.rs`.

use super::*;

#[test]
fn names_no_interface_can_have_are_refused() {
    for bad in ["", "a/b", "sixteen_letters_", "tap%d", "a b", ".."] {
        assert!(matches!(check_name(bad), Err(NetError::Name(_))), "{bad}");
    }
    assert!(check_name("tap0").is_ok());
}

#[test]
fn a_bridge_that_is_not_there_is_told_with_what_to_do() {
    let of = EventLoop::new().unwrap();
    let error = Tap::on_bridge("no-such-bridge", 1, &of).err().map(|e| e.to_string());
    assert!(error.is_some_and(|e| e.contains("ip link add no-such-bridge type bridge")));
}
