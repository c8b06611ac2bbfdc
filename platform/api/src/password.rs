//! Passwords: what is kept of them, and how often they may be guessed.
//!
//! Nothing here tells whether there is a user of some name: an unknown one's password is compared, too, and
//! attempts are counted for whatever name was given.
//!
//! Specifications: RFC 9106 (Argon2), the PHC string format, NIST SP 800-63B section 3.1.1.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use crate::Problem;
use crate::access::blocking;

/// Shortest password.
pub(crate) const LEN_MIN: usize = 8;
/// Longest: as much as is hashed of anybody's.
pub(crate) const LEN_MAX: usize = 256;
/// Hashes at a time: each takes 19 MiB and a core for some ten milliseconds.
static HASHES: Semaphore = Semaphore::const_new(2);
/// What unknown users' passwords are compared to.
static NOBODYS: LazyLock<String> = LazyLock::new(|| hashed("").unwrap_or_default());

fn hashed(password: &str) -> Result<String, Problem> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Problem::internal(&error))
}

/// What is kept of a password: Argon2id, with 19 MiB, two passes and a salt of its own.
pub(crate) async fn hash(password: String) -> Result<String, Problem> {
    if !(LEN_MIN..=LEN_MAX).contains(&password.len()) {
        let detail = format!("a password has {LEN_MIN} to {LEN_MAX} bytes");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unfit-password", detail));
    }
    let _permit = HASHES.acquire().await;
    blocking(move || hashed(&password)).await
}

/// Whether this is the password of whom that is kept of; it takes as long where nothing is.
pub(crate) async fn is_right(password: String, kept: Option<String>) -> Result<bool, Problem> {
    let _permit = HASHES.acquire().await;
    blocking(move || {
        let is_somebodys = kept.is_some();
        let kept = kept.unwrap_or_else(|| NOBODYS.clone());
        let kept = PasswordHash::new(&kept).map_err(|error| Problem::internal(&error))?;
        let is_it = Argon2::default().verify_password(password.as_bytes(), &kept).is_ok();
        Ok(is_it && is_somebodys && password.len() <= LEN_MAX)
    })
    .await
}

/// Attempts that are remembered, for names and addresses that anybody may make up.
const KNOWN_MAX: usize = 10_000;
/// Attempts without a pause: for a name from one address, from one address, and for a name from anywhere.
const FREE: [u32; 3] = [5, 30, 200];
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Copy)]
struct Attempts {
    failed: u32,
    last: Instant,
}

/// Lets through whoever has not guessed too often of late.
#[derive(Default)]
pub(crate) struct Gate(Mutex<HashMap<String, Attempts>>);

/// Attempts come too fast.
#[derive(Debug)]
pub(crate) struct TooOften(Duration);

impl IntoResponse for TooOften {
    fn into_response(self) -> Response {
        let seconds = self.0.as_secs().max(1);
        let detail = format!("too many attempts to sign in: try again in {seconds} s");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", detail);
        let mut response = problem.into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

fn keys(user: &str, from: &str) -> [String; 3] {
    // Longer ones are nobody's, and would be kept.
    let user: String = user.chars().take(64).collect();
    [format!("{from} {user}"), format!("{from} "), format!(" {user}")]
}

/// How long after the last attempt the next one may be.
fn pause(failed: u32, free: u32) -> Duration {
    match failed.checked_sub(free) {
        None => Duration::ZERO,
        Some(over) => Duration::from_secs(1 << over.min(20)).min(PAUSE_MAX),
    }
}

impl Gate {
    /// Somebody tries, at `now`. It counts as a failure until [`Self::passed`]: those at the same time count, too.
    pub fn attempt(&self, user: &str, from: &str, now: Instant) -> Result<(), TooOften> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys(user, from);
        for (key, free) in keys.iter().zip(FREE) {
            let Some(Attempts { failed, last }) = known.get(key) else { continue };
            let left = pause(*failed, free).saturating_sub(now.saturating_duration_since(*last));
            if !left.is_zero() {
                return Err(TooOften(left));
            }
        }
        if known.len() + keys.len() > KNOWN_MAX {
            known.retain(|_, of| now.saturating_duration_since(of.last) < PAUSE_MAX);
        }
        if known.len() + keys.len() > KNOWN_MAX {
            // So many at once are made up: those that have been stopped stay so.
            known.retain(|_, of| of.failed >= FREE[0]);
        }
        for key in keys {
            if known.len() < KNOWN_MAX || known.contains_key(&key) {
                let of = known.entry(key).or_insert(Attempts { failed: 0, last: now });
                // Who pauses for long enough begins anew.
                if now.saturating_duration_since(of.last) > PAUSE_MAX {
                    of.failed = 0;
                }
                *of = Attempts { failed: of.failed.saturating_add(1), last: now };
            }
        }
        Ok(())
    }

    /// The attempt was right: it, and failures before it, do not count for this name from there.
    pub fn passed(&self, user: &str, from: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [pair, address, name] = keys(user, from);
        known.remove(&pair);
        for key in [address, name] {
            if let Some(of) = known.get_mut(&key) {
                of.failed = of.failed.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_waits_twice_as_long_each_time_and_others_do_not() {
        let (gate, begin) = (Gate::default(), Instant::now());
        let after = |s: u64| begin + Duration::from_secs(s);
        for _ in 0..5 {
            assert!(gate.attempt("ann", "10.0.0.1", begin).is_ok());
        }
        let TooOften(left) = gate.attempt("ann", "10.0.0.1", begin).unwrap_err();
        assert_eq!(left, Duration::from_secs(1));
        assert!(gate.attempt("ann", "10.0.0.1", after(1)).is_ok());
        let TooOften(left) = gate.attempt("ann", "10.0.0.1", after(1)).unwrap_err();
        assert_eq!(left, Duration::from_secs(2));
        assert!(gate.attempt("ann", "10.0.0.2", after(1)).is_ok(), "she is elsewhere");
        assert!(gate.attempt("eve", "10.0.0.1", after(1)).is_ok(), "another behind that address");
        assert!(gate.attempt("ann", "10.0.0.1", after(3)).is_ok());
        gate.passed("ann", "10.0.0.1");
        assert!(gate.attempt("ann", "10.0.0.1", after(3)).is_ok());
    }

    #[test]
    fn one_address_and_one_name_are_not_guessed_at_through_many_others() {
        let (gate, now) = (Gate::default(), Instant::now());
        let names = (0..60).filter(|n| gate.attempt(&format!("u{n}"), "10.0.0.1", now).is_ok());
        assert_eq!(names.count(), 30);
        let places = (0..300).filter(|n| gate.attempt("ann", &format!("10.1.0.{n}"), now).is_ok());
        assert_eq!(places.count(), 200);
        for n in 0..40_000 {
            let _ = gate.attempt(&format!("x{n}"), &format!("10.2.{}.{}", n / 250, n % 250), now);
        }
        assert!(gate.0.lock().unwrap().len() <= KNOWN_MAX);
        assert!(gate.attempt("ann", "10.9.9.9", now).is_err(), "it is still stopped");
    }

    #[tokio::test]
    async fn a_password_is_right_for_its_own_hash_only() {
        let kept = hash("correct horse".into()).await.unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert!(is_right("correct horse".into(), Some(kept.clone())).await.unwrap());
        assert!(!is_right("battery staple".into(), Some(kept)).await.unwrap());
        assert!(!is_right(String::new(), None).await.unwrap());
        assert_eq!(hash("short".into()).await.unwrap_err().code, "unfit-password");
    }
}
