//! Which leases there are and when they end. Time is the caller's.
//!
//! A store that is opened again gives every lease its whole time anew, as etcd does when its leader
//! changes: nobody could keep one alive meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{LeaseId, Op, StoreError, Txn};

pub(crate) struct Leases(BTreeMap<LeaseId, Lease>);

struct Lease {
    ttl: Duration,
    ends: Instant,
}

impl Leases {
    pub fn new(all: Vec<(LeaseId, u64)>, now: Instant) -> Self {
        let mut leases = Self(BTreeMap::new());
        for (lease, ttl_s) in all {
            leases.add(lease, ttl_s, now);
        }
        leases
    }

    pub fn add(&mut self, lease: LeaseId, ttl_s: u64, now: Instant) {
        let ttl = Duration::from_secs(ttl_s);
        self.0.insert(lease, Lease { ttl, ends: now + ttl });
    }

    pub fn remove(&mut self, lease: LeaseId) {
        self.0.remove(&lease);
    }

    pub fn find(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.get(&lease).map(|_| ()).ok_or(StoreError::NoLease(lease))
    }

    /// All that a transaction writes with are there.
    pub fn check(&self, txn: &Txn) -> Result<(), StoreError> {
        txn.then.iter().try_for_each(|op| match op {
            Op::Put(_, _, Some(lease)) => self.find(*lease),
            Op::Put(..) | Op::Delete(_) => Ok(()),
        })
    }

    pub fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<(), StoreError> {
        let found = self.0.get_mut(&lease).ok_or(StoreError::NoLease(lease))?;
        found.ends = now + found.ttl;
        Ok(())
    }

    /// Those whose time is over.
    pub fn over(&self, now: Instant) -> Vec<LeaseId> {
        self.0.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect()
    }

    pub fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|lease| lease.ends).min()
    }
}
