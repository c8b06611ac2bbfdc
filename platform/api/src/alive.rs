//! What is open ends when its caller may it no longer.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use registry::{IDENTITY, Registry};
use tokio::sync::{OnceCell, watch};
use tokio::time::sleep;

use crate::Caller;
use crate::access::blocking;

/// After the state could not be watched.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for something's end: clocks are set meanwhile.
const LOOK: Duration = Duration::from_secs(600);

/// Tells that something has changed about who is who: one watch of the state for all that is open.
#[derive(Default)]
pub(crate) struct Identity(OnceCell<watch::Receiver<u64>>);

impl Identity {
    async fn told(&self, registry: &Registry) -> watch::Receiver<u64> {
        let begin = || async {
            let (tell, told) = watch::channel(0);
            tokio::spawn(follow(registry.clone(), tell));
            told
        };
        self.0.get_or_init(begin).await.clone()
    }
}

async fn follow(registry: Registry, tell: watch::Sender<u64>) {
    while !tell.is_closed() {
        let store = registry.store().clone();
        let watched = blocking(move || {
            let (_, now) = store.get("").map_err(registry::RegistryError::from)?;
            Ok(store.watch(IDENTITY, now.next()).map_err(registry::RegistryError::from)?)
        });
        let Ok(mut changes) = watched.await else {
            sleep(PAUSE).await;
            continue;
        };
        // What came before the watch has not been told.
        tell.send_modify(|count| *count += 1);
        while poll_fn(|context| changes.poll(context)).await.is_ok() {
            tell.send_modify(|count| *count += 1);
        }
    }
}

/// Returns when a caller may no longer what they might when they were let in: their token or session is over, or
/// they, or their roles, have changed.
pub(crate) async fn gone(state: Arc<crate::State>, caller: Caller) {
    let Some(digest) = caller.secret.clone() else { return std::future::pending().await };
    let mut told = state.identity.told(&state.registry).await;
    loop {
        told.borrow_and_update();
        let (registry, of) = (state.registry.clone(), digest.clone());
        let bearer = blocking(move || Ok(registry.bearer(&of, Timestamp::now())?)).await;
        // Who is let in again begins anew.
        let Ok(Some(bearer)) = bearer else { return };
        if Caller::bearing(digest.clone(), bearer) != caller {
            return;
        }
        let left = caller.expires.map(|end| end.duration_since(Timestamp::now()));
        let left = left.map_or(LOOK, |left| left.unsigned_abs().min(LOOK));
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = sleep(left.max(Duration::from_millis(10))) => {}
        }
    }
}
