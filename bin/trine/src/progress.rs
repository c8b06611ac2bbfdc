//! How far a long command is: a bar where somebody watches, and lines where not.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A display on the standard error.
pub struct Display {
    bar: ProgressBar,
    begin: Instant,
    is_watched: bool,
}

impl Display {
    /// Of what is being done.
    pub fn new(doing: &str) -> Self {
        let is_watched = stderr().is_terminal();
        let bar = if is_watched { ProgressBar::no_length() } else { ProgressBar::hidden() };
        bar.set_style(style("{spinner} {elapsed_precise} {msg}"));
        bar.set_message(doing.to_owned());
        bar.enable_steady_tick(TICK);
        Self { bar, begin: Instant::now(), is_watched }
    }

    /// The next step of several.
    pub fn step(&self, doing: &str) {
        if self.is_watched {
            self.bar.set_message(doing.to_owned());
        } else {
            eprintln!("trine: {:6.1} s  {doing}", self.begin.elapsed().as_secs_f64());
        }
    }

    /// Bytes done, and of how many.
    pub fn bytes(&self, done: u64, of: Option<u64>) {
        if of != self.bar.length() {
            let bar = "{spinner} {msg} {bytes} of {total_bytes} {wide_bar} {binary_bytes_per_sec}";
            let open = "{spinner} {msg} {bytes} {binary_bytes_per_sec}";
            self.bar.set_style(style(if of.is_some() { bar } else { open }));
            if let Some(of) = of {
                self.bar.set_length(of);
            }
        }
        self.bar.set_position(done);
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a wrong one would show as no more than a plain bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
