//! What runs on a vCPU's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender};

use engine::{Bus, EngineError, Exit, Vcpu};

use super::{Answer, Order, Shared, Stop};
use crate::inbox::Inbox;

/// A vCPU, where it lives.
pub(super) struct CpuThread {
    vcpu: Box<dyn Vcpu>,
    /// Of another engine, while the VM moves.
    prepared: Option<Box<dyn Vcpu>>,
    bus: Arc<dyn Bus>,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
}

impl CpuThread {
    pub(super) fn new(
        vcpu: Box<dyn Vcpu>,
        bus: Arc<dyn Bus>,
        shared: Arc<Shared>,
        inbox: Arc<Inbox>,
    ) -> Self {
        Self { vcpu, prepared: None, bus, shared, inbox }
    }

    /// Does what it is told until nobody can tell it anything any more.
    pub(super) fn serve(mut self, orders: &Receiver<Order>, answers: &SyncSender<Answer>) {
        let _wake = WakeOnPanic(self.inbox.clone());
        while let Ok(order) = orders.recv() {
            if answers.send(self.obey(order)).is_err() {
                break;
            }
        }
    }

    fn obey(&mut self, order: Order) -> Answer {
        match order {
            Order::Run => {
                let stop = self.run();
                if !matches!(stop, Stop::Asked) {
                    self.inbox.vcpu_stopped();
                }
                Answer::Stopped(stop)
            }
            Order::Narrow(filter) => {
                // The process's own list holds anyway.
                let _ = filter.narrow();
                Answer::Done
            }
            Order::Save => match self.vcpu.save() {
                Ok(state) => Answer::Saved(Box::new(state)),
                Err(error) => Answer::Failed(error),
            },
            Order::Load(state) => done(self.vcpu.load(&state)),
            Order::Prepare(mut vcpu, state) => {
                let loaded = vcpu.load(&state);
                self.prepared = Some(vcpu);
                done(loaded)
            }
            Order::Commit => {
                if let Some(prepared) = self.prepared.take() {
                    self.vcpu = prepared;
                }
                Answer::Done
            }
            Order::Abort => {
                self.prepared = None;
                Answer::Done
            }
        }
    }

    fn run(&mut self) -> Stop {
        // A kick may be left over from an earlier stop, so the flag decides, not the exit.
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.vcpu.run(&self.bus) {
                Ok(Exit::Kicked) => {}
                Ok(Exit::TripleFault) => return Stop::TripleFault,
                Ok(Exit::Debug(stop)) => {
                    let error = format!("it stopped at {stop:?}, but nobody debugs it");
                    return Stop::Failed(EngineError::Stuck(error));
                }
                Err(error) => return Stop::Failed(error),
            }
        }
        Stop::Asked
    }
}

fn done(result: Result<(), EngineError>) -> Answer {
    result.map_or_else(Answer::Failed, |()| Answer::Done)
}

/// A thread that dies must be noticed: the control thread sleeps until its inbox wakes it.
struct WakeOnPanic(Arc<Inbox>);

impl Drop for WakeOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.vcpu_stopped();
        }
    }
}
