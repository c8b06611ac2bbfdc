//! A shell in a guest of a daemon, at its serial port.

#![allow(dead_code, reason = "each test uses some of it")]

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::daemon::Daemon;

/// A shell at a VM's serial port.
pub struct Shell<'a> {
    daemon: &'a Daemon,
    vm: &'a str,
    asked: std::cell::Cell<u32>,
}

impl<'a> Shell<'a> {
    pub fn of(daemon: &'a Daemon, vm: &'a str) -> Self {
        Self { daemon, vm, asked: 0.into() }
    }

    /// One that has been asked so much before, by another.
    pub fn after(self, asked: u32) -> Self {
        self.asked.set(asked);
        self
    }

    pub fn printed(&self) -> anyhow::Result<String> {
        self.daemon.http("GET", &format!("/v1/vms/{}/console", self.vm), b"")
    }

    /// What a command prints.
    pub fn run(&self, command: &str) -> anyhow::Result<String> {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        // Of what the terminal echoes, neither is a line of its own.
        let typed = format!("echo BEG''IN{number}; {command}; echo EN''D{number}\n");
        let path = format!("/v1/vms/{}/console", self.vm);
        self.daemon.http("POST", &path, typed.as_bytes())?;
        let (begin, end) = (format!("BEGIN{number}"), format!("END{number}"));
        let since = Instant::now();
        loop {
            let printed = self.printed()?;
            if let Some((_, rest)) = printed.split_once(&begin)
                && let Some((answer, _)) = rest.split_once(&end)
            {
                return Ok(answer.trim().to_owned());
            }
            ensure!(
                since.elapsed() < Duration::from_secs(120),
                "no answer to {command}: {printed}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn until_it_answers(&self) -> anyhow::Result<()> {
        self.until_more_prompts(0)
    }

    /// How often the shell has asked for a command so far, in this boot and those before.
    pub fn prompts(&self) -> anyhow::Result<usize> {
        Ok(self.printed()?.matches("# ").count())
    }

    /// What is typed before a boot's shell asks for it may be lost.
    pub fn until_more_prompts(&self, before: usize) -> anyhow::Result<()> {
        self.daemon.until("the shell", || self.prompts().is_ok_and(|prompts| prompts > before))
    }
}
