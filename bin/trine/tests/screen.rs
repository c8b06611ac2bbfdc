//! Screenshots and keys, with a stand-in for the VM.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmm_rpc::{Answer, KeyPress, Listener, Received, Reply, Request};

const LONG: Duration = Duration::from_secs(60);

/// A VM that answers one request, and returns it.
struct Stand(TempDir, JoinHandle<Request>);

impl Stand {
    fn new(answer: impl FnOnce(&Request) -> Answer + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(&folder.path().join("vm.sock")).unwrap();
        let serving = thread::spawn(move || {
            let peer = until(|| listener.accept("test").unwrap());
            let request = until(|| match peer.receive() {
                Received::Request(request) => Some(request),
                Received::Nothing => None,
                other => panic!("{other:?}"),
            });
            peer.reply(&answer(&request)).unwrap();
            request
        });
        Self(folder, serving)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `trine`, and returns what it said and what the VM was asked.
    fn trine(self, args: &[&str]) -> (Output, Request, TempDir) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trine"));
        command.current_dir(self.0.path()).args(args).args(["--control", "vm.sock"]);
        let output = command.output().unwrap();
        (output, self.1.join().unwrap(), self.0)
    }
}

fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(begin.elapsed() < LONG, "it did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A file with pixels, for a screen of this size.
fn screen(folder: &Path, width: u32, height: u32, pixels: &[u32]) -> Answer {
    let path = folder.join("pixels");
    let mut file = File::options().create(true).read(true).write(true).truncate(true).open(path);
    let file = file.as_mut().unwrap();
    pixels.iter().for_each(|pixel| file.write_all(&pixel.to_le_bytes()).unwrap());
    file.rewind().unwrap();
    Answer { reply: Reply::Screen { width, height }, file: Some(file.try_clone().unwrap().into()) }
}

#[test]
fn a_screenshot_is_a_png_of_the_screen() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = folder.path().to_owned();
    let stand = Stand::new(move |_| screen(&pixels, 2, 1, &[0xff_8040, 0x00_0102]));
    let (output, request, files) = stand.trine(&["screenshot", "a.png"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(request, Request::Screenshot);
    let file = BufReader::new(File::open(files.path().join("a.png")).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut rgb).unwrap();
    assert_eq!((frame.width, frame.height), (2, 1));
    assert_eq!(rgb, [0xff, 0x80, 0x40, 0, 1, 2]);
}

#[test]
fn a_picture_that_is_cut_off_is_no_screenshot() {
    let folder = tempfile::tempdir().unwrap();
    let pixels = folder.path().to_owned();
    let stand = Stand::new(move |_| screen(&pixels, 2, 2, &[0; 3]));
    let target = stand.path("a.png");
    let (output, ..) = stand.trine(&["screenshot", "a.png"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(!target.exists());
}

#[test]
fn keys_go_down_in_order_and_up_backwards() {
    let stand = Stand::new(|_| Reply::Done.into());
    let (output, request, _) = stand.trine(&["key", "ctrl-alt-delete"]);
    assert!(output.status.success(), "{output:?}");
    let key = |code, down| KeyPress { code, down };
    let expected = [
        key(0x1d, true),
        key(0x38, true),
        key(0xd3, true),
        key(0xd3, false),
        key(0x38, false),
        key(0x1d, false),
    ];
    assert_eq!(request, Request::Keys { keys: expected.to_vec() });
}

#[test]
fn capitals_are_typed_with_shift() {
    let stand = Stand::new(|_| Reply::Done.into());
    let (_, request, _) = stand.trine(&["type", "-A"]);
    let Request::Keys { keys } = request else { panic!("{request:?}") };
    let downs: Vec<_> = keys.iter().filter(|key| key.down).map(|key| key.code).collect();
    assert_eq!(downs, [0x0c, 0x2a, 0x1e]);
}
